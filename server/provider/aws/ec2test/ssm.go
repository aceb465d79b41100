package ec2test

import "strings"

func ssmActions() map[string]handler {
	return map[string]handler{"GetParameter": typed(getParameter), "GetParameters": typed(getParameters)}
}

type parameter struct {
	Name, Type, Value, DataType string
	ARN                         string
	Version                     int64
	LastModifiedDate            float64
}

func (c *call) parameter(name string) (parameter, bool) {
	value, ok := c.server.parameters[name]
	dataType := "text"
	if strings.HasPrefix(value, "ami-") {
		dataType = "aws:ec2:image"
	}
	return parameter{
		Name: name, Type: "String", Value: value, DataType: dataType, ARN: "arn:aws:ssm:" + c.server.config.Region + "::parameter" + name,
		Version: 1, LastModifiedDate: 1.7e9,
	}, ok
}

type getParameterIn struct {
	Name           string
	WithDecryption bool
}

func getParameter(c *call, in *getParameterIn) (any, *apiError) {
	p, ok := c.parameter(in.Name)
	if !ok {
		return nil, refuse("ParameterNotFound", "")
	}
	return map[string]any{"Parameter": p}, nil
}

type getParametersIn struct {
	Names          []string
	WithDecryption bool
}

type getParametersOut struct {
	Parameters        []parameter
	InvalidParameters []string
}

func getParameters(c *call, in *getParametersIn) (any, *apiError) {
	out := getParametersOut{Parameters: []parameter{}, InvalidParameters: []string{}}
	for _, name := range in.Names {
		if p, ok := c.parameter(name); ok {
			out.Parameters = append(out.Parameters, p)
		} else {
			out.InvalidParameters = append(out.InvalidParameters, name)
		}
	}
	return out, nil
}

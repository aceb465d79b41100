package ec2test

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/provisionr/provisionr/server/provider/aws/ec2test/model"
)

// handler runs an action whose parameters have passed the model.
type handler func(*call) (any, *apiError)

// typed makes a handler of a function that takes the parameters as a struct: its fields have the names of the model's
// members, and a parameter without a field is one that this server does not know, which is a violation.
func typed[T any](f func(*call, *T) (any, *apiError)) handler {
	return func(c *call) (any, *apiError) {
		data, err := json.Marshal(c.params)
		if err != nil {
			return nil, refuse("InternalError", "%v", err)
		}
		in := new(T)
		decoder := json.NewDecoder(bytes.NewReader(data))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(in); err != nil {
			c.server.violate(c, "UnsupportedOperation", "not implemented here: "+err.Error())
			return nil, refuse("UnsupportedOperation", "This server does not implement: %v", err)
		}
		return f(c, in)
	}
}

// check holds a request against the model and finds its handler.
func (c *call) check(body []byte) (handler, *apiError) {
	s := c.server
	if c.service == "ssm" {
		return c.checkJSON(body)
	}
	service, handlers := s.models.EC2, ec2Actions()
	if c.service == "sts" {
		service, handlers = s.models.STS, stsActions()
	}
	if v := c.form.Get("Version"); v != service.Metadata.APIVersion {
		return nil, c.wrong("InvalidParameterValue", "the API version is "+v)
	}
	if service.Operations[c.action] == nil {
		return nil, c.wrong("InvalidAction", "The action "+c.action+" is not valid for this web service.")
	}
	h := handlers[c.action]
	if h == nil {
		return nil, c.wrong("UnsupportedOperation", "not implemented here")
	}
	form := make(map[string][]string, len(c.form))
	for key, values := range c.form {
		if key != "Action" && key != "Version" {
			form[key] = values
		}
	}
	params, problems := service.Query(c.action, form)
	c.params = params
	return h, c.complain(problems)
}

func (c *call) checkJSON(body []byte) (handler, *apiError) {
	h := ssmActions()[c.action]
	if h == nil {
		return nil, c.wrong("UnknownOperationException", "not an action of this server")
	}
	params, problems := c.server.models.SSM.JSONRequest(c.action, body)
	c.params = params
	if refused := c.complain(problems); refused != nil {
		return nil, refuse("ValidationException", "%s", refused.message)
	}
	return h, nil
}

// complain records the problems of a request and returns the first one as a refusal.
func (c *call) complain(problems []model.Problem) *apiError {
	var first *apiError
	for _, p := range problems {
		// New types of instances come out all the time: that the model does not have one is for the action to say.
		if p.Shape == "InstanceType" {
			continue
		}
		c.server.violate(c, p.Code, p.String())
		if first == nil {
			first = refuse(p.Code, "%s", p)
		}
	}
	return first
}

// wrong records a violation and returns it as a refusal.
func (c *call) wrong(code, text string) *apiError {
	c.server.violate(c, code, text)
	return refuse(code, "%s", text)
}

// success encodes a result and holds it against the model.
func (c *call) success(result any) answer {
	s := c.server
	var body []byte
	var err error
	var problems []model.Problem
	contentType := "text/xml;charset=UTF-8"
	switch c.service {
	case "ssm":
		contentType = "application/x-amz-json-1.1"
		if body, err = json.Marshal(result); err == nil {
			problems = s.models.SSM.JSONAnswer(c.action, body)
		}
	case "sts":
		if body, err = encodeSTS(c, result); err == nil {
			problems = s.models.STS.XML(c.action, body)
		}
	default:
		if body, err = encodeEC2(c, result); err == nil {
			problems = s.models.EC2.XML(c.action, body)
		}
	}
	if err != nil {
		s.violate(c, "InternalError", "cannot encode the answer: "+err.Error())
		return c.refusal(refuse("InternalError", "An internal error has occurred"))
	}
	for _, p := range problems {
		s.violate(c, "InternalError", "the answer: "+p.String())
	}
	return answer{body: body, contentType: contentType, status: http.StatusOK, requestID: c.id}
}

func encodeEC2(c *call, result any) ([]byte, error) {
	inner, err := xml.Marshal(result)
	if err != nil {
		return nil, err
	}
	// The result's own element is left out: its parts stand in the envelope.
	start, end := bytes.IndexByte(inner, '>'), bytes.LastIndex(inner, []byte("</"))
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s<%sResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\n    <requestId>%s</requestId>\n", xml.Header, c.action, c.id)
	b.Write(inner[start+1 : end])
	fmt.Fprintf(&b, "</%sResponse>", c.action)
	return b.Bytes(), nil
}

// refusal encodes an error as the service's reference has it.
func (c *call) refusal(e *apiError) answer {
	return c.failed(e.code, e.message, statusOf(e.code))
}

// failure is an injected answer.
func (c *call) failure(f Failure) answer {
	switch {
	case f.Drop:
		return answer{drop: true}
	case f.Code == "":
		page := "<html><body><h1>" + strconv.Itoa(f.Status) + "</h1></body></html>"
		return answer{body: []byte(page), contentType: "text/html", status: f.Status, requestID: c.id}
	}
	status := f.Status
	if status == 0 {
		status = statusOf(f.Code)
	}
	return c.failed(f.Code, "injected", status)
}

func (c *call) failed(code, message string, status int) answer {
	c.server.errors[code]++
	code, status = c.dialect(code, status)
	a := answer{status: status, requestID: c.id, contentType: "text/xml;charset=UTF-8"}
	switch c.service {
	case "ssm":
		a.contentType = "application/x-amz-json-1.1"
		a.body, _ = json.Marshal(map[string]string{"__type": code, "message": message})
	case "sts":
		kind := "Sender"
		if status >= http.StatusInternalServerError {
			kind = "Receiver"
		}
		a.body = fmt.Appendf(nil, "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>%s</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>%s</RequestId></ErrorResponse>",
			kind, escape(code), escape(message), c.id)
	default:
		a.body = fmt.Appendf(nil, "%s<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors><RequestID>%s</RequestID></Response>",
			xml.Header, escape(code), escape(message), c.id)
	}
	return a
}

// dialect turns the codes that EC2 alone has into those of the services beside it.
func (c *call) dialect(code string, status int) (string, int) {
	switch {
	case c.service == "ssm" && code == "RequestLimitExceeded":
		return "ThrottlingException", http.StatusBadRequest
	case c.service == "sts" && code == "RequestLimitExceeded":
		return "Throttling", http.StatusBadRequest
	case c.service == "ssm" && code == "UnauthorizedOperation":
		return "AccessDeniedException", http.StatusBadRequest
	case c.service == "sts" && code == "UnauthorizedOperation":
		return "AccessDenied", http.StatusForbidden
	case c.service == "ssm" && code == "InternalError":
		return "InternalServerError", status
	}
	return code, status
}

func escape(text string) string {
	var b strings.Builder
	_ = xml.EscapeText(&b, []byte(text))
	return b.String()
}

func itoa(n int) string { return strconv.Itoa(n) }

// stamp is a time as answers have it.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

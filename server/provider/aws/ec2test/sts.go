package ec2test

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"strings"
	"time"
)

func stsActions() map[string]handler {
	return map[string]handler{"GetCallerIdentity": typed(callerIdentity), "AssumeRole": typed(assumeRole)}
}

// encodeSTS wraps a result as the query protocol has it.
func encodeSTS(c *call, result any) ([]byte, error) {
	inner, err := xml.Marshal(result)
	if err != nil {
		return nil, err
	}
	start, end := bytes.IndexByte(inner, '>'), bytes.LastIndex(inner, []byte("</"))
	return fmt.Appendf(nil, "<%[1]sResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><%[1]sResult>%[2]s</%[1]sResult><ResponseMetadata><RequestId>%[3]s</RequestId></ResponseMetadata></%[1]sResponse>",
		c.action, inner[start+1:end], c.id), nil
}

type identityOut struct {
	UserID  string `xml:"UserId"`
	Account string `xml:"Account"`
	ARN     string `xml:"Arn"`
}

func callerIdentity(c *call, _ *struct{}) (any, *apiError) {
	return identityOut{c.caller.userID, c.server.config.Account, c.caller.arn}, nil
}

type assumeIn struct {
	RoleArn, RoleSessionName, ExternalId string
	DurationSeconds                      *int
}

type assumeOut struct {
	ID      string `xml:"Credentials>AccessKeyId"`
	Secret  string `xml:"Credentials>SecretAccessKey"`
	Token   string `xml:"Credentials>SessionToken"`
	Expires string `xml:"Credentials>Expiration"`
	RoleID  string `xml:"AssumedRoleUser>AssumedRoleId"`
	ARN     string `xml:"AssumedRoleUser>Arn"`
}

// assumeRole gives temporary credentials for the roles that the server has.
func assumeRole(c *call, in *assumeIn) (any, *apiError) {
	s := c.server
	if !s.roles[in.RoleArn] {
		return nil, refuse("AccessDenied", "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", c.caller.arn, in.RoleArn)
	}
	life := time.Hour
	if in.DurationSeconds != nil {
		life = time.Duration(*in.DurationSeconds) * time.Second
	}
	_, name, _ := strings.Cut(in.RoleArn, ":role/")
	k := &credentials{
		id: "ASIA" + strings.ToUpper(s.hex(16)), secret: s.hex(40), token: s.hex(64), expires: c.now.Add(life),
		arn:    "arn:aws:sts::" + s.config.Account + ":assumed-role/" + name + "/" + in.RoleSessionName,
		userID: "AROAEC2TEST0123456789:" + in.RoleSessionName,
	}
	s.keys[k.id] = k
	return assumeOut{k.id, k.secret, k.token, k.expires.UTC().Format(time.RFC3339), k.userID, k.arn}, nil
}

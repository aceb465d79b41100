// Package model holds exchanges with AWS services against the vendor's published API models.
//
// The models are the files api-2.json that the module github.com/aws/aws-sdk-go ships: shapes with members, types, required
// ones, enumerations and bounds, and where each has its place on the wire. Three protocols are known: "ec2" (form in, XML
// out), "query" (the same with other list rules) and "json" (both ways). Nothing that a model does not have passes: not a
// parameter, not an element, not a member.
package model

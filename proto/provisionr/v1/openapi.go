package provisionrv1

import _ "embed" // for openAPI

//go:embed openapi.swagger.json
var openAPI []byte

// OpenAPI returns the generated description of the REST API (OpenAPI 2.0, JSON). Nobody may change it.
func OpenAPI() []byte { return openAPI }

// Package console is the web console: one page of plain HTML, CSS and JavaScript, built into the server.
//
// The page knows nothing but the REST API. It shows pools, machines with their phases, the machine × assumption matrix
// and events as they happen, from the API's streams. It asks for a token, which it keeps in the tab's session storage,
// unless the browser has a client certificate that the API accepts.
//
// Nothing is loaded from elsewhere, and the content security policy allows nothing else: no inline script or style, no
// frame around the page. Text from the cluster only ever becomes text nodes.
package console

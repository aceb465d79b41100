package memnet

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// TestNetwork talks over two clients within a bubble, which ends only when nothing of the network is left.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := Serve(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
		for _, c := range []*http.Client{n.Client(), n.Client()} {
			for _, url := range []string{"http://any.test/", "https://other.test:1/"} {
				answer, err := c.Post(url, "text/plain", strings.NewReader(url))
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(answer.Body)
				if err != nil || string(body) != url {
					t.Errorf("%q, %v", body, err)
				}
				if err := answer.Body.Close(); err != nil {
					t.Error(err)
				}
			}
			c.CloseIdleConnections()
		}
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if _, err := n.Client().Get("http://any.test/"); err == nil {
			t.Error("it serves after its end")
		}
	})
}

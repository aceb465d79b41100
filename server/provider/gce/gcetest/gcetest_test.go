package gcetest

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/api/compute/v1"
	"google.golang.org/api/option"
)

// plain makes requests as no client library would.
type plain struct {
	*testing.T
	s *Server
}

func (p plain) do(verb, path, body string) (int, map[string]any) {
	p.Helper()
	r, err := http.NewRequestWithContext(p.Context(), verb, p.s.URL+"projects/test-project/"+path, strings.NewReader(body))
	if err != nil {
		p.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	response, err := p.s.Client.Do(r)
	if err != nil {
		p.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		p.Fatal(err)
	}
	answer := map[string]any{}
	if err := json.Unmarshal(text, &answer); err != nil {
		p.Fatalf("%s: %v", text, err)
	}
	return response.StatusCode, answer
}

func body(name string, more string) string {
	return fmt.Sprintf(`{"name":%q,"machineType":"zones/europe-west3-a/machineTypes/e2-micro","networkInterfaces":[{}],
		"disks":[{"boot":true,"autoDelete":true,"initializeParams":{"sourceImage":"projects/debian-cloud/global/images/%s"}}]%s}`, name, NewestImage, more)
}

const (
	inZone = "zones/europe-west3-a/instances"
	anID   = "7d444840-9dc0-41d1-b245-5ffdce74fad2"
)

// TestViolations are requests that the discovery document forbids: each is refused and recorded.
func TestViolations(t *testing.T) {
	s := Start(t, Config{})
	p := plain{t, s}
	for _, test := range []struct{ name, verb, path, body, says string }{
		{"no such path", "GET", "zones/europe-west3-a/instance", "", "no method"},
		{"verb", "PUT", inZone, "{}", "no method"},
		{"parameter", "GET", inZone + "?max=1", "", `no query parameter "max"`},
		{"an API that is gone", "GET", "aggregated/instances?returnPartialSuccess=true", "", "returnPartialSuccess"},
		{"integer", "GET", inZone + "?maxResults=many", "", "no integer"},
		{"range", "GET", inZone + "/x/serialPort?port=5", "", "more than 4"},
		{"path pattern", "GET", inZone + "/Upper", "", "does not match"},
		{"body of a get", "GET", inZone, "{}", "must be none"},
		{"no body", "POST", inZone, "", "content type"},
		{"no JSON", "POST", inZone, "{", "no JSON"},
		{"two values", "POST", inZone, "{} {}", "no JSON"},
		{"unknown property", "POST", inZone, body("a", `,"colour":"red"`), `no property "colour"`},
		{"unknown inner property", "POST", inZone, body("a", `,"tags":{"item":["x"]}`), `no property "item"`},
		{"output only by flag", "POST", inZone, body("a", `,"status":"RUNNING"`), "output only"},
		{"output only by words", "POST", inZone, body("a", `,"networkInterfaces":[{"name":"nic0"}]`), "output only"},
		{"enumeration", "POST", inZone, body("a", `,"scheduling":{"provisioningModel":"CHEAP"}`), "none of"},
		{"64 bits are strings", "POST", inZone, strings.Replace(body("a", ""), `"autoDelete":true`, `"diskSizeGb":10`, 1), "is a number, not string"},
		{"format", "POST", inZone, strings.Replace(body("a", ""), `"autoDelete":true`, `"diskSizeGb":"ten"`, 1), "no int64"},
		{"pattern of tags", "POST", inZone, body("a", `,"tags":{"items":["Upper"]}`), "does not match"},
		{"required", "POST", "global/firewalls", `{"allowed":[{"IPProtocol":"tcp"}]}`, `required property "name"`},
		{"type", "POST", inZone, body("a", `,"labels":{"a":1}`), "is a number"},
	} {
		status, _ := p.do(test.verb, test.path, test.body)
		found := s.Violations()
		if status < 400 || len(found) != 1 || !strings.Contains(found[0], test.says) {
			t.Errorf("%s: status %d, violations %q, want one that says %q", test.name, status, found, test.says)
		}
	}
	if all := s.Instances(); len(all) != 0 {
		t.Errorf("a violation made %v", all)
	}
}

// TestRefusals are what the reference forbids and the schema does not: no violations, just errors.
func TestRefusals(t *testing.T) {
	p := plain{t, Start(t, Config{})}
	large := strings.Repeat("x", 256<<10)
	item := func(key, value string) string { return fmt.Sprintf(`{"key":%q,"value":%q}`, key, value) }
	for _, test := range []struct {
		name, verb, path, body string
		status                 int
		reason                 string
	}{
		{"metadata value", "POST", inZone, body("a", `,"metadata":{"items":[`+item("user-data", large+"x")+`]}`), 400, "invalid"},
		{"metadata in all", "POST", inZone, body("a", `,"metadata":{"items":[`+item("a", large)+","+item("b", large)+`]}`), 400, "invalid"},
		{"metadata key twice", "POST", inZone, body("a", `,"metadata":{"items":[`+item("a", "")+","+item("a", "")+`]}`), 400, "invalid"},
		{"label key", "POST", inZone, body("a", `,"labels":{"Upper":"x"}`), 400, "invalid"},
		{"label value", "POST", inZone, body("a", `,"labels":{"a":"`+strings.Repeat("x", 64)+`"}`), 400, "invalid"},
		{"machine type", "POST", inZone, strings.Replace(body("a", ""), "e2-micro", "e2-mini", 1), 400, "invalid"},
		{"image", "POST", inZone, strings.Replace(body("a", ""), NewestImage, "debian-99", 1), 404, "notFound"},
		{"subnetwork", "POST", inZone, strings.Replace(body("a", ""), `[{}]`, `[{"subnetwork":"regions/us-central1/subnetworks/default"}]`, 1), 400, "invalid"},
		{"IPv6", "POST", inZone, strings.Replace(body("a", ""), `[{}]`, `[{"stackType":"IPV4_IPV6"}]`, 1), 400, "invalid"},
		{"termination action", "POST", inZone, body("a", `,"scheduling":{"instanceTerminationAction":"DELETE"}`), 400, "invalid"},
		{"spot that restarts", "POST", inZone, body("a", `,"scheduling":{"provisioningModel":"SPOT","automaticRestart":true}`), 400, "invalid"},
		{"zero request id", "POST", inZone + "?requestId=00000000-0000-0000-0000-000000000000", body("a", ""), 400, "invalid"},
		{"request id", "POST", inZone + "?requestId=mine", body("a", ""), 400, "invalid"},
		{"page of 501", "GET", inZone + "?maxResults=501", "", 400, "invalid"},
		{"filter", "GET", inZone + "?filter=name", "", 400, "invalid"},
		{"filter's field", "GET", inZone + "?filter=colour%3Dred", "", 400, "invalid"},
		{"filters mixed", "GET", inZone + "?filter=(name+eq+a)+(name%3Da)", "", 400, "invalid"},
		{"page token", "GET", inZone + "?pageToken=abc", "", 400, "invalid"},
		{"fields", "GET", inZone + "?fields=items(name", "", 400, "invalidParameter"},
		{"zone", "GET", "zones/europe-west3-x/instances", "", 400, "invalid"},
		{"firewall of mixed ranges", "POST", "global/firewalls", `{"name":"a","allowed":[{"IPProtocol":"tcp"}],"sourceRanges":["10.0.0.0/8","::/0"]}`, 400, "invalid"},
		{"firewall range with host bits", "POST", "global/firewalls", `{"name":"a","allowed":[{"IPProtocol":"tcp"}],"sourceRanges":["10.0.0.1/8"]}`, 400, "invalid"},
		{"ports of icmp", "POST", "global/firewalls", `{"name":"a","allowed":[{"IPProtocol":"icmp","ports":["1"]}],"sourceRanges":["10.0.0.0/8"]}`, 400, "invalid"},
		{"absent", "GET", inZone + "/a", "", 404, "notFound"},
		{"absent to delete", "DELETE", inZone + "/a", "", 404, "notFound"},
	} {
		status, answer := p.do(test.verb, test.path, test.body)
		text, _ := json.Marshal(answer)
		if status != test.status || !strings.Contains(string(text), `"reason":"`+test.reason+`"`) {
			t.Errorf("%s: %d %s", test.name, status, text)
		}
	}
}

// TestLife follows an instance through its operations.
func TestLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Start(t, Config{Pipe: true, Pending: time.Second, Running: 10 * time.Second, Lag: 5 * time.Second})
		api, err := compute.NewService(t.Context(), option.WithHTTPClient(s.Client), option.WithEndpoint(s.URL))
		if err != nil {
			t.Fatal(err)
		}
		p := plain{t, s}
		status, first := p.do("POST", inZone+"?requestId="+anID, body("a", `,"labels":{"k":"v"}`))
		if status != 200 || first["status"] != "PENDING" || first["clientOperationId"] != anID || len(s.Instances()) != 0 {
			t.Fatalf("insert: %d %v, %d instances", status, first, len(s.Instances()))
		}
		time.Sleep(2 * time.Second)
		if _, again := p.do("POST", inZone+"?requestId="+anID, body("a", `,"labels":{"k":"v"}`)); again["name"] != first["name"] || again["status"] != "RUNNING" {
			t.Errorf("the same request again: %v", again)
		}
		if _, other := p.do("POST", inZone+"?requestId="+anID, body("b", "")); len(s.Violations()) != 1 {
			t.Errorf("the request id for another request: %v", other)
		}
		if all := s.Instances(); len(all) != 1 || all[0].Status != "PROVISIONING" {
			t.Errorf("instances %v", all)
		}
		name, _ := first["name"].(string)
		begun := time.Now()
		done, err := api.ZoneOperations.Wait("test-project", "europe-west3-a", name).Do()
		if err != nil || done.Status != "DONE" || done.Error != nil || time.Since(begun) != 9*time.Second {
			t.Errorf("wait: %v, %v after %s", done, err, time.Since(begun))
		}
		for filter, want := range map[string]int{
			"labels.k=v": 1, "labels.k=w": 0, "labels.k:*": 1, "labels.x:*": 0, "NOT labels.x:*": 1, `(labels.k="v") (name=b)`: 0, "(name=b) OR (labels.k=v)": 1,
			"name eq a.*": 1, "name ne 'a'": 0, "name eq 'b|a'": 1, "status!=RUNNING": 0, "scheduling.automaticRestart=true": 1, "(name=a) AND (status=RUNNING)": 1,
		} {
			found, err := api.Instances.List("test-project", "europe-west3-a").Filter(filter).Do()
			if err != nil || len(found.Items) != want {
				t.Errorf("filter %s: %d, %v", filter, len(found.Items), err)
			}
		}
		if status, e := p.do("POST", inZone, body("a", "")); status != 409 {
			t.Errorf("the name again: %v", e)
		}
		status, _ = p.do("DELETE", inZone+"/a", "")
		time.Sleep(2 * time.Second)
		if again, _ := p.do("DELETE", inZone+"/a", ""); status != 200 || again != 400 || s.Instances()[0].Status != "STOPPING" {
			t.Errorf("delete: %d, then %d, %v", status, again, s.Instances())
		}
		time.Sleep(10 * time.Second)
		found, err := api.Instances.List("test-project", "europe-west3-a").Do()
		if err != nil || len(found.Items) != 1 || len(s.Instances()) != 0 || len(s.Disks()) != 0 {
			t.Errorf("a list that lags: %v, %v; %d instances, %d disks", found.Items, err, len(s.Instances()), len(s.Disks()))
		}
		time.Sleep(10 * time.Second)
		if found, err = api.Instances.List("test-project", "europe-west3-a").Do(); err != nil || len(found.Items) != 0 {
			t.Errorf("afterwards: %v, %v", found.Items, err)
		}
		if _, late := p.do("POST", inZone+"?requestId="+anID, body("a", `,"labels":{"k":"v"}`)); late["status"] != "DONE" || len(s.Instances()) != 0 {
			t.Errorf("the first request after the end: %v", late)
		}
	})
}

// TestOperationsFail: what is accepted may still be refused, inside the operation.
func TestOperationsFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Start(t, Config{Pipe: true})
		p := plain{t, s}
		for _, test := range []struct {
			code   string
			before func()
			after  func()
		}{
			{"QUOTA_EXCEEDED", func() { s.SetQuota(Region, "CPUS", 1) }, func() { s.SetQuota(Region, "CPUS", -1) }},
			{"ZONE_RESOURCE_POOL_EXHAUSTED", func() { s.SetCapacity(Region+"-a/e2-micro", 0) }, func() { s.SetCapacity(Region+"-a/e2-micro", -1) }},
			{"RESOURCE_ALREADY_EXISTS", func() { p.do("POST", inZone, body("a", "")) }, func() {}},
		} {
			test.before()
			_, o := p.do("POST", inZone, body("a", ""))
			name, _ := o["name"].(string)
			_, done := p.do("POST", "zones/europe-west3-a/operations/"+name+"/wait", "")
			text, _ := json.Marshal(done)
			if !strings.Contains(string(text), `"code":"`+test.code+`"`) || done["status"] != "DONE" {
				t.Errorf("%s: %s", test.code, text)
			}
			test.after()
		}
		if all := s.Instances(); len(all) != 1 {
			t.Errorf("instances %v", all)
		}
	})
}

func TestPages(t *testing.T) {
	s := Start(t, Config{})
	for n := range 1234 {
		zone := Region + "-" + string("abc"[n%3])
		i := compute.Instance{
			Name: fmt.Sprintf("i-%d", n), MachineType: "zones/" + zone + "/machineTypes/e2-micro", NetworkInterfaces: []*compute.NetworkInterface{{}},
			Disks: []*compute.AttachedDisk{{Boot: true, InitializeParams: &compute.AttachedDiskInitializeParams{SourceImage: "projects/debian-cloud/global/images/" + NewestImage}}},
		}
		if err := s.AddInstance(zone, i); err != nil {
			t.Fatal(err)
		}
	}
	api, err := compute.NewService(t.Context(), option.WithHTTPClient(s.Client), option.WithEndpoint(s.URL))
	if err != nil {
		t.Fatal(err)
	}
	seen, addresses, pages := map[string]bool{}, map[string]bool{}, 0
	if err := api.Instances.AggregatedList("test-project").Fields("nextPageToken,items/*/instances(name,networkInterfaces/networkIP)").Pages(t.Context(), func(page *compute.InstanceAggregatedList) error {
		pages++
		for _, scope := range page.Items {
			for _, i := range scope.Instances {
				seen[i.Name], addresses[i.NetworkInterfaces[0].NetworkIP] = true, true
				if i.Id != 0 || i.Status != "" {
					t.Fatalf("fields that were not asked for: %+v", i)
				}
			}
		}
		// What goes in between hides nothing else.
		if pages == 1 {
			for n := range 100 {
				s.Change(fmt.Sprintf("i-%d", n), func(*compute.Instance) {})
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) != 1234 || len(addresses) != 1234 || pages != 3 {
		t.Errorf("%d instances with %d addresses on %d pages", len(seen), len(addresses), pages)
	}
}

func FuzzParsers(f *testing.F) {
	for _, text := range []string{"(labels.a=b) (name eq x.*)", "NOT a:* OR b>=1", "items/*/instances(name,zone),warning", "((", "a(b,c/d(e)),f", "'"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if filter, err := parseFilter(text); err == nil {
			_, _ = filter.matches(map[string]any{"name": "x", "labels": map[string]any{"a": "b"}})
		}
		if selected, err := parseFields(text); err == nil {
			selected.of(map[string]any{"items": []any{map[string]any{"name": "x"}}})
		}
	})
}

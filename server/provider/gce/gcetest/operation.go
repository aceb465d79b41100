package gcetest

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/api/compute/v1"
)

// operation is one change at work (https://cloud.google.com/compute/docs/api/how-tos/api-requests-responses): begin is
// called when it gets RUNNING, finish when it gets DONE; either may end it with an error.
type operation struct {
	*compute.Operation
	scope         string // zones/ZONE, or global
	begin, finish func(now time.Time) *opError
	inserted      time.Time
	runAt, doneAt time.Time
	body          string
}

// opError is an error inside of an operation, which was accepted before.
type opError struct {
	code    string
	status  int64
	message string
}

const stamp = "2006-01-02T15:04:05.000-07:00"

func (s *Server) next() uint64 { s.serial++; return s.serial }

// start records an operation that the caller has checked.
func (s *Server) start(now time.Time, kind, scope, target string, targetID uint64, requestID string) *operation {
	id := s.next()
	o := &operation{scope: scope, inserted: now, runAt: now.Add(s.config.Pending), doneAt: now.Add(s.config.Pending + s.config.Running), Operation: &compute.Operation{
		Kind: "compute#operation", Id: id, Name: fmt.Sprintf("operation-%d-%08x", now.UnixMilli(), id), OperationType: kind, Status: "PENDING",
		TargetLink: target, TargetId: targetID, InsertTime: now.Format(stamp), ClientOperationId: requestID, User: "test@example.com",
	}}
	link := linkBase + "projects/" + s.project + "/" + scope
	if scope != "global" {
		o.Zone = link
	}
	o.SelfLink = link + "/operations/" + o.Name
	s.operations[scope+"/"+o.Name] = o
	s.unfinished = append(s.unfinished, o)
	return o
}

// advance lets happen what has happened by now, in order.
func (s *Server) advance(now time.Time) {
	for {
		var first *operation
		var at time.Time
		for _, o := range s.unfinished {
			due := o.runAt
			if o.Status == "RUNNING" {
				due = o.doneAt
			}
			if !due.After(now) && (first == nil || due.Before(at)) {
				first, at = o, due
			}
		}
		if first == nil {
			return
		}
		s.step(first, at)
	}
}

func (s *Server) step(o *operation, at time.Time) {
	var failed *opError
	if o.Status == "PENDING" {
		o.Status, o.StartTime, o.Progress = "RUNNING", at.Format(stamp), 0
		if o.begin != nil {
			failed = o.begin(at)
		}
		if failed == nil {
			return
		}
	} else if o.finish != nil {
		failed = o.finish(at)
	}
	o.Status, o.EndTime, o.Progress = "DONE", at.Format(stamp), 100
	if failed != nil {
		o.HttpErrorStatusCode, o.HttpErrorMessage = failed.status, strings.ReplaceAll(failed.code, "_", " ")
		o.Error = &compute.OperationError{Errors: []*compute.OperationErrorErrors{{Code: failed.code, Message: failed.message}}}
	}
	s.unfinished = slices.DeleteFunc(s.unfinished, func(x *operation) bool { return x == o })
}

func (s *Server) operation(c *call) (any, *apiError) {
	o := s.operations[c.scope()+"/"+c.path["operation"]]
	if o == nil {
		return nil, notFound(linkBase + "projects/" + s.project + "/" + c.scope() + "/operations/" + c.path["operation"])
	}
	return o.Operation, nil
}

// wait is operations.wait: it waits for the end of the operation, two minutes at most, and tells its state then.
func (s *Server) wait(ctx context.Context, c *call) (any, *apiError) {
	limit := c.now.Add(2 * time.Minute)
	for {
		now := time.Now()
		s.mu.Lock()
		s.advance(now)
		o := s.operations[c.scope()+"/"+c.path["operation"]]
		var until time.Time
		if o != nil {
			switch o.Status {
			case "PENDING":
				until = o.runAt
			case "RUNNING":
				until = o.doneAt
			}
		}
		s.mu.Unlock()
		if o == nil {
			return nil, notFound(linkBase + "projects/" + s.project + "/" + c.scope() + "/operations/" + c.path["operation"])
		}
		if !until.After(now) || !limit.After(now) {
			break
		}
		timer := time.NewTimer(slices.MinFunc([]time.Time{until, limit}, func(a, b time.Time) int { return a.Compare(b) }).Sub(now))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, errorf(499, "cancelled", "the client has gone")
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	answer, failed := s.operation(c)
	if failed != nil {
		return nil, failed
	}
	generic, err := decoded(answer)
	if err != nil {
		return nil, errorf(500, "backendError", "%v", err)
	}
	return generic, nil
}

// replay returns the operation of an earlier request with the same id. One id for two different requests is the caller's
// mistake: the vendor asks for a unique id for each request.
func (s *Server) replay(c *call) (*operation, *apiError) {
	id := c.query.Get("requestId")
	if id == "" {
		return nil, nil
	}
	if !uuid.MatchString(id) || strings.Trim(id, "0-") == "" {
		return nil, invalid("requestId", "'%s'. Must be a valid UUID other than the zero UUID", id)
	}
	o := s.requests[id]
	if o == nil {
		return nil, nil
	}
	if key := c.key(); o.body != key {
		s.violate("%s uses request id %s again for something else", c.method.ID, id)
		return nil, errorf(409, "conflict", "request id %s was used for another request", id)
	}
	return o, nil
}

func (s *Server) remember(c *call, o *operation) {
	if id := c.query.Get("requestId"); id != "" {
		o.body = c.key()
		s.requests[id] = o
	}
}

func (c *call) key() string { return cmp.Or(c.method.ID, "") + " " + c.url + " " + string(c.raw) }

func (c *call) scope() string {
	if zone := c.path["zone"]; zone != "" {
		return "zones/" + zone
	}
	return "global"
}

package session

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace(time.Second, 3)
		count := func(id string) (n int) {
			for range 10 {
				if p.allow(id) {
					n++
				}
			}
			return n
		}
		if a, b := count("a"), count("b"); a != 3 || b != 3 {
			t.Errorf("at once %d and %d", a, b)
		}
		time.Sleep(2 * time.Second)
		if n := count("a"); n != 2 {
			t.Errorf("after two intervals %d", n)
		}
		time.Sleep(time.Hour)
		for i := range 1100 {
			p.allow(fmt.Sprint(i))
		}
		if n := len(p.until); n > 1101 || p.until["b"] != (time.Time{}) {
			t.Errorf("%d machines are remembered", n)
		}
	})
}

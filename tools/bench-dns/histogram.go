package main

import (
	"math/bits"
	"time"
)

// steps divide each power of two: a value is known to 1/64 of itself.
const steps = 64

// histogram counts durations, in nanoseconds, in buckets whose width grows with the value. Its zero value is empty.
type histogram struct {
	counts [steps * 48]uint64
	total  uint64
}

func (h *histogram) add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.total++
}

func bucket(v uint64) int {
	if v < steps {
		return int(v)
	}
	octave := bits.Len64(v) - bits.Len(steps)
	return min(octave*steps+int(v>>octave), steps*48-1)
}

// quantile returns the upper end of the bucket that the quantile q lies in.
func (h *histogram) quantile(q float64) time.Duration {
	rank, seen := uint64(q*float64(h.total)), uint64(0)
	for i, n := range h.counts {
		if seen += n; seen > rank {
			octave := max(i/steps-1, 0)
			return time.Duration(uint64(i-octave*steps+1)<<octave - 1)
		}
	}
	return 0
}

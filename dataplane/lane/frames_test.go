package lane

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

func TestParseFrames(t *testing.T) {
	challenge, response := PathData{1, 2, 3, 4, 5, 6, 7, 8}, PathData{9, 10, 11, 12, 13, 14, 15, 16}
	report := Report{
		Highest: 70, Received: 60, Reordered: 2, Duplicates: 1 << 20, ECT0: 50, ECT1: 4, CE: 6,
		DelayMicros: 20_000, ArrivalMicros: 1 << 40,
	}
	datagram := Datagram{63, 2, []byte("packet")}
	withDatagram := func(b []byte) []byte { return append(AppendDatagramHeader(b, 63, 2), "packet"...) }
	all := AppendPadding(AppendPing(nil), 3)
	all = AppendReport(AppendPathResponse(AppendPathChallenge(all, challenge), response), &report)
	tests := []struct {
		name   string
		frames []byte
		want   Frames
	}{
		{"ping", AppendPing(nil), Frames{Set: HasPing}},
		{"padding", AppendPadding(nil, 1300), Frames{Set: HasPadding}},
		{"probe", AppendPadding(AppendPing(nil), 200), Frames{Set: HasPing | HasPadding}},
		{"challenge", AppendPathChallenge(nil, challenge), Frames{Set: HasPathChallenge, Challenge: challenge}},
		{"response", AppendPathResponse(nil, response), Frames{Set: HasPathResponse, Response: response}},
		{"report", AppendReport(nil, &report), Frames{Set: HasReport, Report: report}},
		{"datagram", withDatagram(nil), Frames{Datagram: datagram}},
		{
			"report and datagram", withDatagram(AppendReport(nil, &report)),
			Frames{Set: HasReport, Report: report, Datagram: datagram},
		},
		{"all", withDatagram(all), Frames{
			HasPing | HasPathChallenge | HasPathResponse | HasReport | HasPadding,
			challenge, response, report, datagram,
		}},
	}
	for _, tt := range tests {
		var got Frames
		if !ParseFrames(tt.frames, &got) {
			t.Errorf("%s: refused", tt.name)
			continue
		}
		if !sameFrames(&got, &tt.want) {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
		d, ok := ParseDatagram(tt.frames)
		if ok != (tt.want.Set == 0) || ok && !sameDatagram(d, tt.want.Datagram) {
			t.Errorf("%s: the fast path says %v, %+v", tt.name, ok, d)
		}
	}
}

func sameDatagram(a, b Datagram) bool {
	return a.QuarterStreamID == b.QuarterStreamID && a.ContextID == b.ContextID && bytes.Equal(a.Payload, b.Payload) &&
		(a.Payload == nil) == (b.Payload == nil)
}

// sameFrames compares what the sets say is there.
func sameFrames(a, b *Frames) bool {
	return a.Set == b.Set && sameDatagram(a.Datagram, b.Datagram) &&
		(!a.Set.Has(HasPathChallenge) || a.Challenge == b.Challenge) &&
		(!a.Set.Has(HasPathResponse) || a.Response == b.Response) &&
		(!a.Set.Has(HasReport) || a.Report == b.Report)
}

func TestParseFramesRefuses(t *testing.T) {
	good := Report{Highest: 70, Received: 60}
	reportWith := func(fields ...uint64) []byte {
		b := bytes.Clone(reportType[:])
		for i := range reportFields {
			v := uint64(0)
			if i < len(fields) {
				v = fields[i]
			}
			b = appendVarint(b, v)
		}
		return b
	}
	tests := map[string][]byte{
		"nothing":                          {},
		"unknown type":                     {0x02, 0, 0},
		"unknown type after a ping":        {FramePing, 0x1e},
		"two pings":                        {FramePing, FramePing},
		"two runs of padding":              {FramePadding, FramePing, FramePadding},
		"two challenges":                   AppendPathChallenge(AppendPathChallenge(nil, PathData{}), PathData{}),
		"two responses":                    AppendPathResponse(AppendPathResponse(nil, PathData{}), PathData{}),
		"two reports":                      AppendReport(AppendReport(nil, &good), &good),
		"short challenge":                  AppendPathChallenge(nil, PathData{})[:8],
		"short response":                   AppendPathResponse(nil, PathData{})[:8],
		"datagram without IDs":             {FrameDatagram},
		"datagram without context":         {FrameDatagram, 0},
		"datagram without payload":         {FrameDatagram, 0, 0},
		"datagram with length":             {FrameDatagram + 1, 0, 0, 1, 2},
		"quarter stream ID of two bytes":   {FrameDatagram, 0x40, 0, 0, 1},
		"context ID of two bytes":          {FrameDatagram, 0, 0x40, 0, 1},
		"ping in two bytes":                {0x40, 0x01},
		"report type cut":                  reportType[:3],
		"report type of a neighbour":       append([]byte{reportType[0], reportType[1], reportType[2], reportType[3] + 1}, reportWith(70, 60)[4:]...),
		"report with nothing received":     reportWith(70, 0),
		"report of more than were sent":    reportWith(70, 72),
		"report with more late than came":  reportWith(70, 60, 61),
		"report with more ECN than came":   reportWith(70, 60, 0, 0, 30, 30, 1),
		"report with a delay of two hours": reportWith(70, 60, 0, 0, 0, 0, 0, 2*MaxReportDelayMicros),
		"report with a long zero":          append(bytes.Clone(reportType[:]), 70, 60, 0x40, 0, 0, 0, 0, 0, 0, 0),
	}
	whole := AppendReport(nil, &good)
	for n := range len(whole) - 1 {
		tests["report cut to "+string(rune('a'+n))] = whole[:n+1]
	}
	for name, frames := range tests {
		var f Frames
		if ParseFrames(frames, &f) {
			t.Errorf("%s: %x accepted as %+v", name, frames, f)
		}
		if _, ok := ParseDatagram(frames); ok {
			t.Errorf("%s: %x accepted on the fast path", name, frames)
		}
	}
}

func TestAppendReport(t *testing.T) {
	top := uint64(NumberLimit - 1)
	longest := Report{top, top, top, top, top, 0, 0, MaxReportDelayMicros, top}
	if b := AppendReport(nil, &longest); len(b) > MaxReportBytes || len(b) < MaxReportBytes-2*7 {
		t.Errorf("longest report: %d bytes", len(b))
	}
	for _, bad := range []Report{
		{},
		{Highest: 1, Received: 3},
		{Highest: NumberLimit, Received: 1},
		{Highest: 1, Received: 1, Duplicates: NumberLimit},
		{Highest: 1, Received: 1, ECT0: 1 << 63, ECT1: 1 << 63},
		{Highest: 1, Received: 1, DelayMicros: MaxReportDelayMicros + 1},
	} {
		if b := AppendReport(nil, &bad); b != nil {
			t.Errorf("%+v became %x", bad, b)
		}
	}
}

func TestVarint(t *testing.T) {
	// The examples of RFC 9000 appendix A.1, and the edges of each length.
	tests := []struct {
		encoded []byte
		value   uint64
	}{
		{[]byte{0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c}, 151288809941952652},
		{[]byte{0x9d, 0x7f, 0x3e, 0x7d}, 494878333},
		{[]byte{0x7b, 0xbd}, 15293},
		{[]byte{0x25}, 37},
		{[]byte{63}, 63},
		{[]byte{0x40, 64}, 64},
		{[]byte{0x7f, 0xff}, 1<<14 - 1},
		{[]byte{0x80, 0, 0x40, 0}, 1 << 14},
		{[]byte{0xbf, 0xff, 0xff, 0xff}, 1<<30 - 1},
		{[]byte{0xc0, 0, 0, 0, 0x40, 0, 0, 0}, 1 << 30},
		{bytes.Repeat([]byte{0xff}, 8), 1<<62 - 1},
	}
	for _, tt := range tests {
		if got := appendVarint(nil, tt.value); !bytes.Equal(got, tt.encoded) {
			t.Errorf("%d: %x, want %x", tt.value, got, tt.encoded)
		}
		if v, rest, ok := parseVarint(append(bytes.Clone(tt.encoded), 5)); !ok || v != tt.value || len(rest) != 1 {
			t.Errorf("%x: %d, %v", tt.encoded, v, ok)
		}
		if _, _, ok := parseVarint(tt.encoded[:len(tt.encoded)-1]); ok {
			t.Errorf("%x cut was accepted", tt.encoded)
		}
	}
	for _, long := range [][]byte{{0x40, 0x25}, {0x80, 0, 0x3f, 0xff}, {0xc0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff}} {
		if v, _, ok := parseVarint(long); ok {
			t.Errorf("%x accepted as %d", long, v)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	buf := make([]byte, 0, 1500)
	r := Report{Highest: 70, Received: 60}
	var f Frames
	if n := testing.AllocsPerRun(1000, func() {
		b := AppendPadding(AppendReport(AppendPing(buf), &r), 100)
		b = AppendPathChallenge(b, PathData{1})
		b = append(AppendDatagramHeader(b, 1, 0), 1)
		if !ParseFrames(b, &f) {
			t.Fatal("refused")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// appendFrames writes what f holds, in one of the orders that are allowed.
func appendFrames(f *Frames, padding int, order []int) []byte {
	var b []byte
	for _, i := range order {
		switch kind := FrameSet(1) << i; {
		case !f.Set.Has(kind):
		case kind == HasPing:
			b = AppendPing(b)
		case kind == HasPathChallenge:
			b = AppendPathChallenge(b, f.Challenge)
		case kind == HasPathResponse:
			b = AppendPathResponse(b, f.Response)
		case kind == HasReport:
			b = AppendReport(b, &f.Report)
		case kind == HasPadding:
			b = AppendPadding(b, padding)
		}
	}
	if f.Datagram.Payload != nil {
		b = append(AppendDatagramHeader(b, f.Datagram.QuarterStreamID, f.Datagram.ContextID), f.Datagram.Payload...)
	}
	return b
}

func FuzzParseFrames(f *testing.F) {
	r := Report{Highest: 1 << 33, Received: 1 << 20, ECT0: 1 << 10, DelayMicros: 400, ArrivalMicros: 1 << 31}
	f.Add(AppendPadding(AppendPing(nil), 40), uint64(1))
	f.Add(append(AppendDatagramHeader(AppendReport(nil, &r), 3, 2), 0x45), uint64(2))
	f.Add(AppendPathResponse(AppendPathChallenge(AppendReport(nil, &r), PathData{1}), PathData{2}), uint64(3))
	f.Add([]byte{FrameDatagram, 0, 0, 0x45}, uint64(4))
	f.Add([]byte{FrameDatagram, 0x40, 0, 0x45}, uint64(4))
	f.Fuzz(func(t *testing.T, frames []byte, seed uint64) {
		original := bytes.Clone(frames)
		var got Frames
		ok := ParseFrames(frames, &got)
		if !bytes.Equal(frames, original) {
			t.Fatal("parsing wrote to the packet")
		}
		if d, fast := ParseDatagram(frames); fast && (!ok || got.Set != 0 || !sameDatagram(d, got.Datagram)) {
			t.Fatalf("two parsers, two answers: %+v and %v %+v", d, ok, got)
		}
		if !ok {
			return
		}
		if len(got.Datagram.Payload) > len(frames) || got.Set == 0 && got.Datagram.Payload == nil {
			t.Fatalf("accepted without a frame: %+v", got)
		}
		// Written again, in any order, it says the same; in as many bytes, for every encoding is the shortest.
		order := rand.New(rand.NewPCG(seed, 0)).Perm(5)
		again := appendFrames(&got, paddingIn(frames, &got), order)
		var reread Frames
		if !ParseFrames(again, &reread) || !sameFrames(&got, &reread) || len(again) != len(frames) {
			t.Fatalf("%x became %x: %+v, then %+v", frames, again, got, reread)
		}
	})
}

// paddingIn returns how many bytes of padding the frames have: what is left of their length.
func paddingIn(frames []byte, f *Frames) int {
	if !f.Set.Has(HasPadding) {
		return 0
	}
	return len(frames) - len(appendFrames(f, 0, []int{0, 1, 2, 3, 4}))
}

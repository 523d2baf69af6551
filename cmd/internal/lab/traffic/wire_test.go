package traffic

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

func FuzzParseRequest(f *testing.F) {
	f.Add(request{kind: kindUpload, duration: time.Second, interval: time.Second, congestion: "cubic"}.encode())
	f.Add(request{kind: kindPaced, packets: maxPackets, messageBytes: maxMessageBytes}.encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := parseRequest(b)
		if err != nil {
			return
		}
		if again, err := parseRequest(r.encode()); err != nil || again != r {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}

func TestRequestsAreBounded(t *testing.T) {
	valid := request{kind: kindUpload, duration: time.Minute, interval: time.Second / 10, congestion: "cubic"}
	for _, test := range []struct {
		name   string
		change func(*request)
		ok     bool
	}{
		{"valid", func(*request) {}, true},
		{"no kind", func(r *request) { r.kind = 0 }, false},
		{"unknown kind", func(r *request) { r.kind = kindPaced + 1 }, false},
		{"too long", func(r *request) { r.duration = maxDuration + 1 }, false},
		{"negative", func(r *request) { r.duration = -1 }, false},
		{"too many intervals", func(r *request) { r.interval = time.Microsecond }, false},
		{"too many packets", func(r *request) { r.packets = maxPackets + 1 }, false},
		{"long messages", func(r *request) { r.messageBytes = maxMessageBytes + 1 }, false},
		{"long name", func(r *request) { r.congestion = strings.Repeat("x", congestionBytes) }, false},
	} {
		r := valid
		test.change(&r)
		if err := r.check(); (err == nil) != test.ok {
			t.Errorf("%s: %v", test.name, err)
		}
		if _, err := parseRequest(r.encode()); len(r.congestion) < congestionBytes && (err == nil) != test.ok {
			t.Errorf("%s, by wire: %v", test.name, err)
		}
	}
}

func FuzzReadReport(f *testing.F) {
	f.Add(meter{bytes: 10, elapsed: time.Second, intervals: []int64{4, 6}}.encode())
	f.Add(binary.BigEndian.AppendUint32(make([]byte, 16), 1<<31))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := readReport(bytes.NewReader(b), time.Second)
		if err != nil {
			return
		}
		again, err := readReport(bytes.NewReader(m.encode()), time.Second)
		if err != nil || !reflect.DeepEqual(again, m) {
			t.Errorf("%+v became %+v, %v", m, again, err)
		}
	})
}

func FuzzReadTally(f *testing.F) {
	f.Add(tally{received: 1, duplicates: 2, reordered: 3, drops: 4}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readTally(bytes.NewReader(b))
		if err == nil && !bytes.Equal(got.encode(), b[:tallyBytes]) {
			t.Errorf("%x became %+v", b, got)
		}
	})
}

func FuzzICMPParse(f *testing.F) {
	for _, v6 := range []bool{false, true} {
		e := newICMPEcho(v6)
		f.Add(v6, e.encode(7, 56))
		reply := e.encode(7, 56)
		if reply[0] = icmp4EchoReply; v6 {
			reply[0] = icmp6EchoReply
		}
		f.Add(v6, reply) // to somebody else
		f.Add(v6, icmpErrorAbout(e, 7))
	}
	f.Fuzz(func(t *testing.T, v6 bool, b []byte) {
		answer, ok := icmpEcho{v6: v6}.parse(b)
		if !ok && (answer != icmpAnswer{}) {
			t.Errorf("not ours, yet %+v", answer)
		}
	})
}

// icmpErrorAbout returns a "too big" for a request.
func icmpErrorAbout(e icmpEcho, number uint16) []byte {
	message := []byte{icmp4Unreachable, icmp4FragNeeded, 0, 0, 0, 0, 0x05, 0x14}
	quote := make([]byte, 20)
	quote[0], quote[9] = 0x45, protocolICMP
	if e.v6 {
		message[0], message[1] = icmp6TooBig, 0
		quote = make([]byte, 40)
		quote[6] = protocolICMPv6
	}
	return append(append(message, quote...), e.encode(number, 8)...)
}

func TestICMPParse(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		mine, other := newICMPEcho(v6), newICMPEcho(v6)
		other.id = mine.id + 1
		reply := mine.encode(7, 56)
		if reply[0] = icmp4EchoReply; v6 {
			reply[0] = icmp6EchoReply
		}
		stranger := mine
		stranger.token[7]++
		for _, test := range []struct {
			name    string
			echo    icmpEcho
			message []byte
			ok      bool
			mtu     int
		}{
			{"the answer", mine, reply, true, 0},
			{"an answer to somebody else", other, reply, false, 0},
			{"an answer to our id with another token", stranger, reply, false, 0},
			{"our own request", mine, mine.encode(7, 56), false, 0},
			{"too big", mine, icmpErrorAbout(mine, 7), true, 1300},
			{"too big for somebody else", other, icmpErrorAbout(mine, 7), false, 0},
			{"cut", mine, icmpErrorAbout(mine, 7)[:20], false, 0},
			{"nothing", mine, nil, false, 0},
		} {
			answer, ok := test.echo.parse(test.message)
			if ok != test.ok || ok && answer.number != 7 || (answer.failure != nil) != (test.mtu > 0) {
				t.Errorf("IPv6 %v, %s: %+v, %v", v6, test.name, answer, ok)
			}
			if answer.failure != nil && answer.failure.MTU != test.mtu {
				t.Errorf("IPv6 %v, %s: MTU %d", v6, test.name, answer.failure.MTU)
			}
		}
	}
}

func TestInternetChecksum(t *testing.T) {
	// RFC 1071 section 3.
	if got := internetChecksum([]byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}); got != ^uint16(0xddf2) {
		t.Errorf("checksum %#x", got)
	}
	if got := internetChecksum([]byte{0x12}); got != ^uint16(0x1200) {
		t.Errorf("checksum of an odd number of bytes %#x", got)
	}
}

// The counts of a sequence must match those of a plain list.
func TestSequenceCounts(t *testing.T) {
	const packets = 300
	for range 100 {
		s := newSequence(packets)
		var want tally
		seen := make(map[uint32]bool)
		highest := int64(-1)
		for range 400 {
			n := rand.Uint32N(packets + 20)
			fresh := n < packets && !seen[n]
			switch {
			case n >= packets:
			case seen[n]:
				want.duplicates++
			default:
				want.received++
				if int64(n) < highest {
					want.reordered++
				}
				seen[n] = true
				highest = max(highest, int64(n))
			}
			if s.add(n) != fresh {
				t.Fatalf("number %d: first is %v", n, !fresh)
			}
		}
		if s.tally != want {
			t.Fatalf("counted %+v, want %+v", s.tally, want)
		}
	}
}

func TestMeterIntervals(t *testing.T) {
	m := meter{interval: 100 * time.Millisecond}
	m.add(10*time.Millisecond, 1)
	m.add(99*time.Millisecond, 2)
	m.add(250*time.Millisecond, 4)
	if m.bytes != 7 || m.elapsed != 250*time.Millisecond || !reflect.DeepEqual(m.intervals, []int64{3, 0, 4}) {
		t.Errorf("%+v", m)
	}
}

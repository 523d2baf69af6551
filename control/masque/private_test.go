package masque

import (
	"bytes"
	"errors"
	"testing"

	"github.com/quic-go/quic-go/quicvarint"
)

func TestPrivateCapsuleTypes(t *testing.T) {
	seen := map[CapsuleType]bool{}
	for _, c := range []CapsuleType{CapsuleLane, CapsuleMap, CapsuleReport} {
		if seen[c] || uint64(c) > quicvarint.Max || quicvarint.Len(uint64(c)) != 8 {
			t.Errorf("%#x is not a long varint of its own", uint64(c))
		}
		if c%0x29 == 0x17 {
			t.Errorf("%#x is reserved by RFC 9297 section 5.4", uint64(c))
		}
		seen[c] = true
	}
	if CodeRestart%0x1f == 0x21%0x1f {
		t.Errorf("%#x is reserved by RFC 9114 section 8.1", uint64(CodeRestart))
	}
}

func TestPrivate(t *testing.T) {
	body, err := AppendPrivate(nil, []byte("hello"))
	if err != nil || !bytes.Equal(body, append([]byte{0x53, 0xa6, 0x55, 0x94, 1}, "hello"...)) {
		t.Fatalf("encoded %x, %v", body, err)
	}
	if p, err := ParsePrivate(body); err != nil || string(p) != "hello" {
		t.Fatalf("parsed %q, %v", p, err)
	}
	for name, change := range map[string]func([]byte) []byte{
		"other magic":   func(b []byte) []byte { b[0]++; return b },
		"other version": func(b []byte) []byte { b[4] = 2; return b },
		"short":         func(b []byte) []byte { return b[:4] },
		"empty":         func([]byte) []byte { return nil },
	} {
		if _, err := ParsePrivate(change(bytes.Clone(body))); !errors.Is(err, errForeign) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := AppendPrivate(nil, make([]byte, MaxPrivateBytes+1)); !errors.Is(err, errExcessive) {
		t.Errorf("too long: %v", err)
	}
	if b, err := AppendPrivate(nil, make([]byte, MaxPrivateBytes)); err != nil || len(b) != MaxCapsuleBytes {
		t.Errorf("longest: %d bytes, %v", len(b), err)
	}
}

func TestEcho(t *testing.T) {
	want := echo{reportEchoAnswer, 1<<63 | 5, 7}
	if e, ok := parseEcho(want.payload()); !ok || e != want {
		t.Errorf("parsed %+v %t", e, ok)
	}
	tooLong := echo{reportEchoRequest, 1, MaxPingPadding + 1}.payload()
	for _, b := range [][]byte{nil, {1}, {1, 0, 0, 0, 0, 0, 0, 0}, tooLong, {3, 0, 0, 0, 0, 0, 0, 0, 0}} {
		if _, ok := parseEcho(b); ok {
			t.Errorf("%x is taken for an echo", b)
		}
	}
}

func FuzzParsePrivate(f *testing.F) {
	body, err := AppendPrivate(nil, echo{reportEchoRequest, 7, 3}.payload())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(body)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		payload, err := ParsePrivate(body)
		if err != nil {
			return
		}
		if e, ok := parseEcho(payload); ok {
			back := e.payload()
			if len(back) != len(payload) || !bytes.Equal(back[:echoBytes], payload[:echoBytes]) {
				t.Fatalf("echo %x changed", payload)
			}
		}
		if back, err := AppendPrivate(nil, payload); len(payload) <= MaxPrivateBytes &&
			(err != nil || !bytes.Equal(back, body)) {
			t.Fatalf("%x became %x, %v", body, back, err)
		}
	})
}

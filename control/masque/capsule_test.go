package masque

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"github.com/quic-go/quic-go/quicvarint"
)

func TestCapsuleReader(t *testing.T) {
	var stream []byte
	stream = appendCapsule(stream, capsuleAddressAssign, nil)
	stream = appendCapsule(stream, 0x1234567, make([]byte, 200<<10)) // unknown, longer than any limit
	stream = appendCapsule(stream, CapsuleLane, bytes.Repeat([]byte{7}, MaxCapsuleBytes))
	stream = appendCapsule(stream, capsuleDatagram, []byte{1})
	r := newCapsuleReader(iotest.HalfReader(bytes.NewReader(stream)))
	for _, want := range []struct {
		t     CapsuleType
		bytes int
	}{{capsuleAddressAssign, 0}, {0x1234567, 0}, {CapsuleLane, MaxCapsuleBytes}, {capsuleDatagram, 0}} {
		ct, body, err := r.next()
		if err != nil || ct != want.t || len(body) != want.bytes {
			t.Fatalf("got %#x with %d bytes, %v; want %+v", uint64(ct), len(body), err, want)
		}
	}
	if _, _, err := r.next(); !errors.Is(err, io.EOF) || errors.Is(err, errMalformed) {
		t.Fatalf("at the end: %v", err)
	}
}

// RFC 9297 section 3.3: a stream that ends inside a capsule is malformed.
func TestRFC9297Section3_3Truncated(t *testing.T) {
	whole := appendCapsule(nil, CapsuleMap, bytes.Repeat([]byte{7}, 100))
	unknown := appendCapsule(nil, 0x1234567, bytes.Repeat([]byte{7}, 100))
	for _, stream := range [][]byte{whole, unknown} {
		for n := 1; n < len(stream); n++ {
			if _, _, err := newCapsuleReader(bytes.NewReader(stream[:n])).next(); !errors.Is(err, errMalformed) {
				t.Fatalf("after %d bytes: %v", n, err)
			}
		}
	}
	broken := io.MultiReader(bytes.NewReader(whole[:20]), iotest.ErrReader(errRunning))
	_, _, err := newCapsuleReader(broken).next()
	if !errors.Is(err, errRunning) || errors.Is(err, errMalformed) {
		t.Fatalf("transport error became %v", err)
	}
}

// A body beyond the limit is refused before any of it is held.
func TestCapsuleTooLong(t *testing.T) {
	stream := quicvarint.Append(quicvarint.Append(nil, uint64(CapsuleLane)), MaxCapsuleBytes+1)
	r := newCapsuleReader(bytes.NewReader(stream))
	if _, _, err := r.next(); !errors.Is(err, errExcessive) || cap(r.body) != 0 {
		t.Fatalf("got %v and %d bytes held", err, cap(r.body))
	}
}

// endless is a stream that never ends.
type endless struct{ read int }

func (e *endless) Read(b []byte) (int, error) {
	e.read += len(b)
	return len(b), nil
}

// RFC 9297 section 3.2: unknown capsules are skipped, here without being held.
func TestRFC9297Section3_2UnknownNotBuffered(t *testing.T) {
	const length = 64 << 20
	head := quicvarint.Append(quicvarint.Append(nil, 0x1234567), length)
	body := &endless{}
	r := newCapsuleReader(io.MultiReader(bytes.NewReader(head), body))
	if _, _, err := r.next(); err != nil {
		t.Fatal(err)
	}
	if body.read < length || cap(r.body) != 0 || r.r.Size() != capsuleReadBufferBytes {
		t.Errorf("read %d bytes, held %d", body.read, cap(r.body))
	}
}

func FuzzCapsuleReader(f *testing.F) {
	f.Add(appendCapsule(appendCapsule(nil, capsuleAddressAssign, []byte{1, 2, 3}), 0x1234567, []byte{4}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, stream []byte) {
		r := newCapsuleReader(bytes.NewReader(stream))
		for range len(stream) + 1 {
			ct, body, err := r.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, errMalformed) && !errors.Is(err, errExcessive) {
					t.Fatalf("unexpected error %v", err)
				}
				return
			}
			if len(body) > MaxCapsuleBytes || !ct.parsed() && body != nil {
				t.Fatalf("type %#x with %d bytes", uint64(ct), len(body))
			}
			back, rest, err := newCapsuleReader(bytes.NewReader(appendCapsule(nil, ct, body))).next()
			if err != nil || back != ct || !bytes.Equal(rest, body) {
				t.Fatalf("%#x %x became %#x %x, %v", uint64(ct), body, uint64(back), rest, err)
			}
		}
		t.Fatal("more capsules than bytes")
	})
}

package masque

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/quicvarint"
)

// packetOf makes an IPv4 or IPv6 packet of n bytes, filled with a pattern.
func packetOf(version byte, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i)
	}
	p[0] = version<<4 | 5
	if version == 4 {
		binary.BigEndian.PutUint16(p[2:], uint16(n))
	} else {
		binary.BigEndian.PutUint16(p[4:], uint16(n-40))
	}
	return p
}

// RFC 9484 section 6: context ID 0 carries a whole packet, and nothing else.
func TestRFC9484Section6Packet(t *testing.T) {
	c, s := newFakePair(0)
	sender, receiver := NewSession(c), NewSession(s)
	for _, p := range [][]byte{packetOf(4, 20), packetOf(4, 1241), packetOf(6, 40), packetOf(6, 1000)} {
		if err := sender.SendPacket(p); err != nil {
			t.Fatal(err)
		}
		if err := sender.SendPacket(p); err != nil {
			t.Fatal(err)
		}
		if wire := <-s.fromPeer; !bytes.Equal(wire, append([]byte{0}, p...)) {
			t.Fatalf("on the wire: %x", wire)
		}
		if got, err := receiver.ReceivePacket(t.Context()); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("received %x, %v", got, err)
		}
	}
	if st := sender.Stats(); st.PacketsSent != 8 || st.BytesSent != 2*(20+1241+40+1000) {
		t.Errorf("sender counted %+v", st)
	}
	if st := receiver.Stats(); st.PacketsReceived != 4 || st.BytesReceived != 20+1241+40+1000 {
		t.Errorf("receiver counted %+v", st)
	}
}

func TestSendPacketRefusesOtherThanOnePacket(t *testing.T) {
	c, _ := newFakePair(0)
	s := NewSession(c)
	two := append(packetOf(4, 40), packetOf(4, 40)...)
	bad := [][]byte{
		nil,
		{4 << 4},
		packetOf(4, 20)[:19], packetOf(6, 40)[:39], two,
		append(packetOf(4, 30), 0), packetOf(6, 60)[:59], packetOf(5, 40), make([]byte, 40),
	}
	for _, p := range bad {
		if err := s.SendPacket(p); !errors.Is(err, ErrNotOnePacket) {
			t.Errorf("SendPacket(%x): %v", p, err)
		}
	}
	if got := s.Stats().PacketsInvalid; got != uint64(len(bad)) {
		t.Errorf("counted %d", got)
	}
}

// RFC 9484 section 10.1: a packet that does not fit is not sent, and the sender can
// tell its source the size that does.
func TestRFC9484Section10_1TooLarge(t *testing.T) {
	for _, c := range []struct {
		id   quic.StreamID
		want int // 1243 less the quarter stream ID and the context ID
	}{{0, 1241}, {252, 1241}, {256, 1240}} {
		str, _ := newFakePair(c.id)
		s := NewSession(str)
		for _, size := range []int{c.want + 1, 1500, 9000, 65535} {
			var tooLarge *PacketTooLargeError
			err := s.SendPacket(packetOf(4, size))
			if !errors.As(err, &tooLarge) || tooLarge.MaxPacketBytes != c.want {
				t.Errorf("stream %d: %d bytes: %v", c.id, size, err)
			}
		}
		if err := s.SendPacket(packetOf(4, c.want)); err != nil {
			t.Errorf("stream %d: the largest packet: %v", c.id, err)
		}
		if got := s.Stats(); got.PacketsTooLarge != 4 || got.PacketsSent != 1 {
			t.Errorf("stream %d: counted %+v", c.id, got)
		}
	}
}

func TestMaxPacketSizeFollowsTransport(t *testing.T) {
	str, _ := newFakePair(0)
	s := NewSession(str)
	str.sendErr = errors.New("transport says nothing")
	if got := s.MaxPacketSize(); got != 1161 {
		t.Errorf("before anything is known: %d", got)
	}
	str.sendErr = nil
	for _, c := range []struct{ datagram, want int }{{1243, 1241}, {1404, 1402}, {1163, 1161}, {1, 0}} {
		str.maxDatagram = int64(c.datagram)
		if got := s.MaxPacketSize(); got != c.want {
			t.Errorf("datagrams of %d: %d, want %d", c.datagram, got, c.want)
		}
	}
	if len(str.toPeer) != 0 {
		t.Error("the question was sent")
	}
	// A transport without limit takes the question, and the peer drops it.
	str.maxDatagram = 1 << 20
	s.MaxPacketSize()
	id, _, err := quicvarint.Parse(<-str.toPeer)
	if err != nil || id != oversizeContextID {
		t.Errorf("the question has context ID %d, %v", id, err)
	}
}

// RFC 9484 section 6: unknown context IDs are dropped, here with a count.
func TestRFC9484Section6UnknownContext(t *testing.T) {
	c, peer := newFakePair(0)
	s := NewSession(c)
	p := packetOf(4, 100)
	for _, b := range [][]byte{
		append(quicvarint.Append(nil, 2), p...),       // unknown
		append(quicvarint.Append(nil, 1<<62-1), p...), // unknown
		{3},                           // unknown, empty
		{},                            // no context ID
		{0x40},                        // half a context ID
		{0},                           // no packet
		{0x40, 0},                     // no packet
		append([]byte{0x40, 0}, p...), // context ID 0 in two bytes
		append([]byte{0xc0, 0, 0, 0, 0, 0, 0, 0}, p...),   // and in eight
		append([]byte{0}, p...),                           // as it is sent
		append([]byte{0x80, 0, 0, 1}, packetOf(4, 30)...), // context ID 1 in four bytes
	} {
		peer.toPeer <- b
	}
	for range 3 {
		if got, err := s.ReceivePacket(t.Context()); err != nil || !bytes.Equal(got, p) {
			t.Fatalf("received %x, %v", got, err)
		}
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errRunning)
	for len(c.fromPeer) > 0 {
		if _, err := s.ReceivePacket(ctx); !errors.Is(err, errRunning) {
			t.Fatalf("after cancel: %v", err)
		}
	}
	if st := s.Stats(); st.DatagramsUnknown != 4 || st.DatagramsMalformed != 4 || st.PacketsReceived != 3 {
		t.Errorf("counted %+v", st)
	}
}

func TestPacketsAfterClose(t *testing.T) {
	c, _ := newFakePair(0)
	s := NewSession(c)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.SendPacket(packetOf(4, 20)); !errors.Is(err, ErrClosed) || !errors.Is(err, net.ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if _, err := s.ReceivePacket(t.Context()); !errors.Is(err, ErrClosed) {
		t.Errorf("receive: %v", err)
	}
	if got := s.MaxPacketSize(); got != 1241 {
		t.Errorf("limit %d", got)
	}
}

func TestSendPacketTransportError(t *testing.T) {
	c, _ := newFakePair(0)
	c.sendErr = errors.New("no route to host")
	s := NewSession(c)
	if err := s.SendPacket(packetOf(6, 80)); !errors.Is(err, c.sendErr) {
		t.Errorf("send: %v", err)
	}
	if st := s.Stats(); st.PacketsFailed != 1 || st.PacketsSent != 0 {
		t.Errorf("counted %+v", st)
	}
}

// The packet path allocates nothing of its own.
func TestPacketPathAllocations(t *testing.T) {
	c, _ := newFakePair(0)
	c.toPeer = nil // swallow
	s := NewSession(c)
	p := packetOf(6, 1200)
	framed := append([]byte{0}, p...)
	if n := testing.AllocsPerRun(100, func() {
		if s.SendPacket(p) != nil {
			t.Fatal("send failed")
		}
	}); n != 0 {
		t.Errorf("send: %v allocations", n)
	}
	receiver := NewSession(&onePacketStream{fakeStream: c, datagram: framed})
	if n := testing.AllocsPerRun(100, func() {
		if _, err := receiver.ReceivePacket(context.Background()); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("receive: %v allocations", n)
	}
}

// onePacketStream receives the same datagram for ever.
type onePacketStream struct {
	*fakeStream
	datagram []byte
}

func (o *onePacketStream) ReceiveDatagram(context.Context) ([]byte, error) { return o.datagram, nil }

func FuzzReceivePacket(f *testing.F) {
	f.Add([]byte{0, 0x45})
	f.Add([]byte{0x40, 0, 0x45})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		c, peer := newFakePair(0)
		s := NewSession(c)
		marker := packetOf(4, 20)
		peer.toPeer <- datagram
		peer.toPeer <- append([]byte{0}, marker...)
		got, err := s.ReceivePacket(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		id, n, err := quicvarint.Parse(datagram)
		want := marker
		if err == nil && id == 0 && n < len(datagram) {
			want = datagram[n:]
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%x gave %x", datagram, got)
		}
	})
}

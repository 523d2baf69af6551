package udp

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

func openLocal(t testing.TB, cfg Config) *Conn {
	t.Helper()
	cfg.Address = netip.MustParseAddrPort("127.0.0.1:0")
	c, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func batchOf(n int) []ipv4.Message {
	ms := make([]ipv4.Message, n)
	for i := range ms {
		ms[i].Buffers, ms[i].OOB = [][]byte{make([]byte, 1452)}, make([]byte, 128)
	}
	return ms
}

// TestDeliver: datagrams come out one by one, in order, with their sender, and the queue is bounded.
func TestDeliver(t *testing.T) {
	c := openLocal(t, Config{QUICQueuePackets: 10})
	from := netip.MustParseAddrPort("192.0.2.1:443")
	for round := range 7 { // the ring turns
		data := bytes.Repeat([]byte{byte(round)}, 3*100+50)
		c.Deliver(&Message{Data: data, SegmentBytes: 100, From: from})
		c.DeliverDatagram(&Message{From: from}, []byte{1, 2, 3})
		ms := batchOf(8)
		n, err := c.QUIC().ReadBatch(ms, 0)
		if n != 5 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		for i, want := range []int{100, 100, 100, 50, 3} {
			addr, ok := ms[i].Addr.(*net.UDPAddr)
			if ms[i].N != want || !ok || addr.AddrPort() != from || ms[i].Buffers[0][0] != []byte{byte(round), 1}[i/4] {
				t.Errorf("packet %d: %d bytes from %v", i, ms[i].N, ms[i].Addr)
			}
		}
	}
	c.Deliver(&Message{Data: make([]byte, 15*100), SegmentBytes: 100, From: from})
	c.Deliver(&Message{Data: make([]byte, quicPacketBytes+1), From: from})
	c.Deliver(&Message{From: from}) // an empty datagram
	if s := c.Stats(); s.QUICDatagrams != 7*5+10 || s.QUICDropped != 5 || s.QUICTooLong != 1 {
		t.Errorf("%+v", s)
	}
	if n, err := c.QUIC().ReadBatch(batchOf(8), 0); n != 8 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	b := make([]byte, 10) // a short buffer takes a part
	if n, addr, err := c.QUIC().ReadFrom(b); n != 10 || err != nil || addr.String() != from.String() {
		t.Errorf("%d, %v, %v", n, addr, err)
	}
	n, oobn, _, addr, err := c.QUIC().ReadMsgUDP(make([]byte, 1452), make([]byte, 1))
	if n != 100 || oobn != 0 || addr == nil || err != nil {
		t.Errorf("%d, %d, %v, %v", n, oobn, addr, err)
	}
}

// TestReadDeadline: as quic-go uses it to stop, and as anybody else may.
func TestReadDeadline(t *testing.T) {
	q := openLocal(t, Config{}).QUIC()
	read := func() error { _, err := q.ReadBatch(batchOf(1), 0); return err }
	ended := make(chan error)
	go func() { ended <- read() }()
	runtime.Gosched()
	if err := q.SetReadDeadline(time.Now()); err != nil { // whether it waits already or not
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	m := &Message{Data: []byte("x"), From: netip.MustParseAddrPort("192.0.2.1:1")}
	q.deliver(m, m.Data, 1)
	var netErr net.Error
	if err := read(); !errors.As(err, &netErr) || !netErr.Timeout() { // quic-go looks at this before data
		t.Errorf("with a packet: %v", err)
	}
	if err := q.SetReadDeadline(time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := read(); err != nil {
		t.Error(err)
	}
	if err := q.SetReadDeadline(time.Now().Add(time.Millisecond)); err != nil { // the timer wakes the reader
		t.Fatal(err)
	}
	if err := read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("later: %v", err)
	}
	if err := q.SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	go func() { ended <- read() }()
	runtime.Gosched()
	if err := q.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// TestUnsupported: what is not honoured is refused.
func TestUnsupported(t *testing.T) {
	q := openLocal(t, Config{}).QUIC()
	raw, err := q.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"SetDeadline": q.SetDeadline(time.Time{}), "SetWriteDeadline": q.SetWriteDeadline(time.Time{}),
		"Read":  raw.Read(func(uintptr) bool { return true }),
		"Write": raw.Write(func(uintptr) bool { return true }),
	} {
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, addr := range []net.Addr{nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, (*net.UDPAddr)(nil), &net.UDPAddr{}} {
		if _, err := q.WriteTo([]byte("x"), addr); err == nil {
			t.Errorf("written to %v", addr)
		}
	}
}

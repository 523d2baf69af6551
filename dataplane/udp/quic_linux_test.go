package udp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// laneMark starts the lane-like packets of these tests, where a lane packet has its connection ID.
var laneMark = []byte("Clane-id")

// engine drives the receive side of a Conn: lane-like packets to itself, everything else to quic-go.
type engine struct {
	lane       atomic.Int64
	laneBytes  atomic.Int64
	ecn        [4]atomic.Int64 // of QUIC packets, by their bits
	quic       atomic.Int64
	done       chan error
	everything bool // deliver whole messages
}

func (e *engine) run(c *Conn) {
	ms := messages(8)
	for {
		n, err := c.Receive(ms)
		if err != nil {
			e.done <- err
			return
		}
		for i := range ms[:n] {
			m := &ms[i]
			if e.everything {
				e.ecn[m.ECN].Add(int64(m.Datagrams()))
				e.quic.Add(int64(m.Datagrams()))
				c.Deliver(m)
				continue
			}
			for datagram := range sliced(m.Data, m.SegmentBytes) {
				if bytes.HasPrefix(datagram, laneMark) {
					e.lane.Add(1)
					e.laneBytes.Add(int64(len(datagram)))
					continue
				}
				e.ecn[m.ECN].Add(1)
				e.quic.Add(1)
				c.DeliverDatagram(m, datagram)
			}
		}
	}
}

// start runs an engine until the Conn closes.
func start(t *testing.T, c *Conn, everything bool) *engine {
	e := &engine{done: make(chan error, 1), everything: everything}
	go e.run(c)
	t.Cleanup(func() {
		if err := errors.Join(c.Close()); err != nil {
			t.Error(err)
		}
		if err := <-e.done; !errors.Is(err, ErrClosed) {
			t.Errorf("receiver: %v", err)
		}
	})
	return e
}

func testTLS(t *testing.T) (server, client *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"test"}, NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	chain := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{chain}, NextProtos: []string{"t"}},
		&tls.Config{RootCAs: pool, ServerName: "test", NextProtos: []string{"t"}}
}

const streamBytes = 4 << 20

// serve echoes one stream and all datagrams of one connection.
func serve(ctx context.Context, l *quic.Listener) error {
	conn, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	go func() {
		for {
			b, err := conn.ReceiveDatagram(ctx)
			if err != nil {
				return // the connection has ended
			}
			_ = conn.SendDatagram(b) // likewise
		}
	}()
	s, err := conn.AcceptStream(ctx)
	if err != nil {
		return err
	}
	if _, err := io.Copy(s, s); err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	<-conn.Context().Done()
	return nil
}

// talk sends a stream and datagrams, and wants them back.
func talk(ctx context.Context, conn *quic.Conn) error {
	s, err := conn.OpenStreamSync(ctx)
	if err != nil {
		return err
	}
	data := pattern(streamBytes, 5)
	wrote := make(chan error, 1)
	go func() {
		_, err := s.Write(data)
		wrote <- errors.Join(err, s.Close())
	}()
	back, err := io.ReadAll(s)
	if err := errors.Join(err, <-wrote); err != nil {
		return err
	}
	if !bytes.Equal(back, data) {
		return fmt.Errorf("%d bytes came back, and differ", len(back))
	}
	for i := range 100 {
		want := fmt.Appendf(nil, "datagram %d", i)
		for got := []byte(nil); !bytes.Equal(got, want); { // a lost one is sent again
			if err := conn.SendDatagram(want); err != nil {
				return err
			}
			once, cancel := context.WithTimeout(ctx, time.Second)
			got, err = conn.ReceiveDatagram(once)
			cancel()
			if err != nil && ctx.Err() != nil {
				return err
			}
		}
	}
	return nil
}

// TestQUIC: a real client and server over Conns, with their fast paths; beside lane-like traffic on the same sockets.
func TestQUIC(t *testing.T) {
	for _, name := range []string{"all", "only batches", "without batches"} {
		cfg := modes[name]
		for _, address := range []string{"IPv4", "IPv6"} {
			t.Run(name+"/"+address, func(t *testing.T) {
				left, right := newLink(t, 1500)
				a, b := left.open(cfg), right.open(cfg)
				target := other4
				if address == "IPv6" {
					target = other6
				}
				lane := to(t, a, at(b, target))
				arrive(t, a, lane, b)
				ea, eb := start(t, a, true), start(t, b, false)
				serverTLS, clientTLS := testTLS(t)
				qcfg := &quic.Config{EnableDatagrams: true}
				ta := &quic.Transport{Conn: a.QUIC(), ConnectionIDLength: 8}
				tb := &quic.Transport{Conn: b.QUIC(), ConnectionIDLength: 8}
				defer ta.Close()
				defer tb.Close()
				listener, err := tb.Listen(serverTLS, qcfg)
				if err != nil {
					t.Fatal(err)
				}
				served := make(chan error, 1)
				go func() { served <- serve(t.Context(), listener) }()
				conn, err := ta.Dial(t.Context(), net.UDPAddrFromAddrPort(at(b, target)), clientTLS, qcfg)
				if err != nil {
					t.Fatal(err)
				}
				const rows = 100
				row := bytes.Repeat(append(bytes.Clone(laneMark), make([]byte, 1000-len(laneMark))...), 10)
				sent := make(chan error, 1)
				go func() {
					for range rows {
						if err := a.Send(row, 1000, 1, lane); err != nil {
							sent <- err
							return
						}
					}
					sent <- nil
				}()
				if err := errors.Join(talk(t.Context(), conn), <-sent); err != nil {
					t.Fatal(err)
				}
				if err := conn.CloseWithError(0, ""); err != nil {
					t.Fatal(err)
				}
				if err := <-served; err != nil {
					t.Fatal(err)
				}
				if n := eb.laneBytes.Load(); eb.lane.Load() != 10*rows || n != int64(rows*len(row)) {
					t.Errorf("%d lane packets of %d bytes", eb.lane.Load(), n)
				}
				for _, side := range []struct {
					name string
					e    *engine
					c    *Conn
					peer *Conn
				}{{"client", ea, a, b}, {"server", eb, b, a}} {
					s, peer := side.c.Stats(), side.peer.Stats()
					// quic-go stops marking when the peer does not confirm the marks of its first ten packets.
					if marked, plain := side.e.ecn[2].Load(), side.e.ecn[0].Load(); marked < 1000 || plain > 100 {
						t.Errorf("%s received %d packets with ECT(0) and %d without", side.name, marked, plain)
					}
					perWrite := float64(side.e.quic.Load()) / float64(peer.QUICWrites)
					if perWrite < 1.5 {
						t.Errorf("%s: %.1f packets per write: no UDP_SEGMENT", side.name, perWrite)
					}
					if n := uint64(side.e.quic.Load()); s.QUICDatagrams+s.QUICDropped+s.QUICTooLong != n || s.QUICTooLong > 0 {
						t.Errorf("%s: of %d %+v", side.name, n, s)
					}
					t.Logf("%s: %.1f packets per write, %d dropped", side.name, perWrite, s.QUICDropped)
				}
				if local := conn.LocalAddr(); local == nil {
					t.Error("no local address")
				}
				var df int
				var dfErr error
				err = b.backend.descriptor(func(fd uintptr) {
					df, dfErr = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER)
				})
				if err = errors.Join(err, dfErr); err != nil || df != unix.IP_PMTUDISC_PROBE {
					t.Errorf("DF %d, %v", df, err)
				}
			})
		}
	}
}

// TestQUICWithPlainPeer: one end is a Conn, the other what quic-go has always had.
func TestQUICWithPlainPeer(t *testing.T) {
	left, right := newLink(t, 1500)
	b := right.open(Config{})
	var plain *net.UDPConn
	left.do(func() (err error) { plain, err = Listen(t.Context(), Config{}); return err })
	defer plain.Close()
	a := left.open(Config{})
	arrive(t, a, to(t, a, at(b, right4)), b)
	start(t, b, true)
	serverTLS, clientTLS := testTLS(t)
	qcfg := &quic.Config{EnableDatagrams: true}
	ta, tb := &quic.Transport{Conn: plain}, &quic.Transport{Conn: b.QUIC()}
	defer ta.Close()
	defer tb.Close()
	listener, err := tb.Listen(serverTLS, qcfg)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- serve(t.Context(), listener) }()
	conn, err := ta.Dial(t.Context(), net.UDPAddrFromAddrPort(at(b, right4)), clientTLS, qcfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := talk(t.Context(), conn); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(conn.CloseWithError(0, ""), <-served); err != nil {
		t.Fatal(err)
	}
}

// TestQUICBuffers: quic-go makes buffers larger when it starts; they are as configured once it reads.
func TestQUICBuffers(t *testing.T) {
	left, _ := newLink(t, 1500)
	for _, without := range []bool{false, true} {
		c := left.open(Config{ReceiveBufferBytes: 400_000, SendBufferBytes: 300_000, WithoutBatch: without})
		start(t, c, true)
		serverTLS, _ := testTLS(t)
		tr := &quic.Transport{Conn: watched{c.QUIC(), make(chan Offloads, 2), c}}
		l, err := tr.Listen(serverTLS, nil)
		if err != nil {
			t.Fatal(err)
		}
		w, _ := tr.Conn.(watched)
		if o := <-w.offloads; o.ReceiveBufferBytes < defaultBufferBytes || o.SendBufferBytes < defaultBufferBytes {
			t.Errorf("quic-go left %+v", o)
		}
		if err := errors.Join(l.Close(), tr.Close()); err != nil {
			t.Fatal(err)
		}
		if o := c.Offloads(); o.ReceiveBufferBytes != 800_000 || o.SendBufferBytes != 600_000 {
			t.Errorf("%+v", o)
		}
	}
}

// watched tells of the offloads before the first read.
type watched struct {
	*QUICConn

	offloads chan Offloads
	conn     *Conn
}

func (w watched) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	select {
	case w.offloads <- w.conn.Offloads():
	default:
	}
	return w.QUICConn.ReadBatch(ms, flags)
}

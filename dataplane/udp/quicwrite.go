package udp

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// WriteMsgUDP writes like (*net.UDPConn).WriteMsgUDP, with the same errors. What the least that QUIC wants of a path is too
// long for goes in fragments: see [Conn.InFragments].
func (q *QUICConn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if addr == nil {
		return 0, 0, &net.OpError{Op: "write", Net: "udp", Err: net.InvalidAddrError("missing address")}
	}
	if err := q.write(b, oob, addr.AddrPort()); err != nil {
		return 0, 0, err
	}
	q.stats.quicWrites.Add(1)
	q.stats.quicWriteBytes.Add(uint64(len(b)))
	return len(b), len(oob), nil
}

// WriteTo writes a packet to an address, which is a *net.UDPAddr; quic-go uses it on Windows.
func (q *QUICConn) WriteTo(b []byte, addr net.Addr) (int, error) {
	to, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, &net.OpError{Op: "write", Net: "udp", Addr: addr, Err: net.InvalidAddrError("not a UDP address")}
	}
	n, _, err := q.WriteMsgUDP(b, nil, to)
	return n, err
}

// write sends with DF, or in fragments.
func (q *QUICConn) write(b, control []byte, to netip.AddrPort) error {
	remote := netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	if len(b) == 0 || !remote.Addr().Is4() {
		return q.backend.write(b, control, to)
	}
	if q.narrow.concerns(b[0]) {
		segment := sentSegment(control, b)
		fragments, sound := q.narrow.writing(remote, b[0], segment, q.nanos())
		if sound {
			q.sound(to, control)
		}
		if fragments && q.twin != nil {
			return q.writeNarrow(b, control, segment, to)
		}
	}
	err := q.backend.write(b, control, to)
	if errno, ok := errors.AsType[syscall.Errno](err); ok && isTooLong(errno) {
		segment := sentSegment(control, b)
		if q.narrow.refused(remote, segment, q.nanos()) && q.twin != nil {
			return q.writeNarrow(b, control, segment, to)
		}
	}
	return err
}

// writeNarrow sends datagrams one by one: in fragments, unless they are short.
func (q *QUICConn) writeNarrow(b, control []byte, segment int, to netip.AddrPort) error {
	if segment < len(b) {
		control = withoutSegment(control)
	}
	for len(b) > 0 {
		n := min(segment, len(b))
		if err := q.writeOneNarrow(b[:n], control, to); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (q *QUICConn) writeOneNarrow(b, control []byte, to netip.AddrPort) error {
	if len(b) <= wholeBytes {
		return q.backend.write(b, control, to)
	}
	q.stats.quicFragmented.Add(1)
	return q.twin.send(b, control, to)
}

// sound asks whether anybody is there who does not get long packets: whoever speaks QUIC answers a packet of a connection
// that it does not know with a stateless reset, which is short (RFC 9000 section 10.3).
func (q *QUICConn) sound(to netip.AddrPort, control []byte) {
	packet := make([]byte, soundingBytes)
	_, _ = rand.Read(packet) // ends the program rather than fail
	packet[0] = packet[0]&0x3f | 0x40
	// A sounding that is not sent is not answered. What is wrong the packet behind it tells.
	_ = q.backend.write(packet, withoutSegment(control), to)
}

// nanos is the time for narrow.
func (q *QUICConn) nanos() int64 { return int64(time.Since(q.begin)) }

// fragments says whether there are any.
func (q *QUICConn) fragments() Offload {
	if q.twin == nil {
		return Offload{Reason: q.noTwin.Error()}
	}
	return Offload{On: true}
}

func (q *QUICConn) closeTwin() error {
	if q.twin == nil {
		return nil
	}
	return q.twin.close()
}

// InFragments reports whether QUIC's packets of 549 to 1,200 bytes to an address go in fragments of IPv4, because the path
// carries less than the 1,228 bytes that they take. That is against RFC 9000 section 14, and the only way to speak QUIC
// there. Lanes send nothing in fragments.
//
// A path is thought to be narrow if the interface says so (EMSGSIZE), a lane has found it to be (see [Conn.Carries]), the
// other end's handshake came in fragments, or a handshake has gone unanswered twice. The last two may be wrong, which does
// no harm, and lasts until a lane knows better or the path is idle for two minutes.
func (c *Conn) InFragments(remote netip.AddrPort) bool {
	p, _ := c.quic.path(remote)
	return p.reason != notNarrow && c.quic.twin != nil
}

// Carries tells how long a UDP payload to an address may be, as the search of a lane has found.
func (c *Conn) Carries(remote netip.AddrPort, bytes int) {
	if remote.Addr().Unmap().Is4() {
		c.quic.narrow.carries(netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), bytes, c.quic.nanos())
	}
}

// PathError returns ErrPathMTU if that is why nobody answers at an address: our own interface is too narrow for QUIC, the
// kernel has heard that a router is, or small packets are answered and long ones are not.
func (c *Conn) PathError(remote netip.AddrPort) error {
	p, ok := c.quic.path(remote)
	switch {
	case !ok, p.reason == notNarrow, p.heard:
		return nil
	case p.reason == narrowAnswerless && !p.answers && !c.quic.heardNarrow(remote):
		return nil
	case c.quic.twin == nil:
		return fmt.Errorf("%w: %w", ErrPathMTU, c.quic.noTwin)
	}
	return ErrPathMTU
}

func (q *QUICConn) path(remote netip.AddrPort) (narrowPath, bool) {
	return q.narrow.path(netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()), q.nanos())
}

func (q *QUICConn) heardNarrow(remote netip.AddrPort) bool {
	if q.twin == nil {
		return false
	}
	mtu := q.twin.heardMTU(remote)
	return mtu > 0 && mtu < minQUICBytes+udpHeaderBytes+ipv4HeaderBytes
}

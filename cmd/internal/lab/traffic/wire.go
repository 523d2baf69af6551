package traffic

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"
)

// A client opens a TCP connection for each measurement but UDP echo and begins it with a request of 64
// bytes, in network byte order:
//
//	magic 4 | kind 1 | zero 3 | message bytes 4 | packets 4 | duration ns 8 | interval ns 8
//	congestion 16 | zero 16
//
// What follows depends on the kind:
//
//	upload    client sends until it shuts down its half; the server answers with a report of what it received
//	download  the server sends for the duration and closes
//	echo      the server returns every byte
//	paced     the server answers with a session of 4 bytes; the client sends UDP packets and
//	          shuts down its half; the server waits until no more packets come and answers with a tally
//
// UDP packets begin with magic 4 | session 4 | number 4. Those of the echo magic are returned as they
// are, those of the paced magic are counted for their session.

type requestKind uint8

const (
	kindUpload requestKind = iota + 1
	kindDownload
	kindEcho
	kindPaced
)

const (
	requestMagic = 0xae7e1ab1
	echoMagic    = 0xae7e1ab2
	pacedMagic   = 0xae7e1ab3

	requestBytes    = 64
	congestionBytes = 16

	headerBytes = 12 // of a UDP packet
	echoBytes   = 20 // and of an echo message, with the time at which it was sent

	maxMessageBytes = 65507
	maxPackets      = 1 << 28
	maxDuration     = 24 * time.Hour
	maxIntervals    = 1 << 16
)

// request is what a client asks of a server.
type request struct {
	kind         requestKind
	messageBytes int
	packets      int
	duration     time.Duration
	interval     time.Duration
	congestion   string
}

func (r request) encode() []byte {
	b := make([]byte, requestBytes)
	binary.BigEndian.PutUint32(b, requestMagic)
	b[4] = byte(r.kind)
	binary.BigEndian.PutUint32(b[8:], uint32(r.messageBytes))
	binary.BigEndian.PutUint32(b[12:], uint32(r.packets))
	binary.BigEndian.PutUint64(b[16:], uint64(r.duration))
	binary.BigEndian.PutUint64(b[24:], uint64(r.interval))
	copy(b[32:32+congestionBytes], r.congestion)
	return b
}

// check refuses what would cost a server unbounded memory or time.
func (r request) check() error {
	switch {
	case r.kind < kindUpload || r.kind > kindPaced:
		return fmt.Errorf("unknown kind of request %d", r.kind)
	case r.messageBytes < 0 || r.messageBytes > maxMessageBytes:
		return fmt.Errorf("messages of %d bytes, want at most %d", r.messageBytes, maxMessageBytes)
	case r.packets < 0 || r.packets > maxPackets:
		return fmt.Errorf("%d packets, want at most %d", r.packets, maxPackets)
	case r.duration < 0 || r.duration > maxDuration:
		return fmt.Errorf("duration %v, want at most %v", r.duration, maxDuration)
	case r.interval < 0 || r.interval > 0 && r.duration/r.interval > maxIntervals/2:
		return fmt.Errorf("interval %v is too short for a duration of %v", r.interval, r.duration)
	case len(r.congestion) >= congestionBytes:
		return fmt.Errorf("congestion control %q is longer than %d bytes", r.congestion, congestionBytes-1)
	}
	return nil
}

func parseRequest(b []byte) (request, error) {
	if len(b) != requestBytes || binary.BigEndian.Uint32(b) != requestMagic {
		return request{}, errors.New("not a request")
	}
	r := request{
		kind:         requestKind(b[4]),
		messageBytes: int(binary.BigEndian.Uint32(b[8:])),
		packets:      int(binary.BigEndian.Uint32(b[12:])),
		duration:     time.Duration(binary.BigEndian.Uint64(b[16:])),
		interval:     time.Duration(binary.BigEndian.Uint64(b[24:])),
		congestion:   strings.TrimRight(string(b[32:32+congestionBytes]), "\x00"),
	}
	return r, r.check()
}

// putHeader writes the first bytes of a UDP packet.
func putHeader(b []byte, magic, session, number uint32) {
	binary.BigEndian.PutUint32(b, magic)
	binary.BigEndian.PutUint32(b[4:], session)
	binary.BigEndian.PutUint32(b[8:], number)
}

// header reads them; ok is false for a packet too short to have them.
func header(b []byte) (magic, session, number uint32, ok bool) {
	if len(b) < headerBytes {
		return 0, 0, 0, false
	}
	return binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:]), true
}

package masque

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// CodeRestart is the application error code with which a node closes a QUIC
// connection whose sessions it means to make again at once: a part of it restarts
// or the process is being upgraded. It is a fixed random number, not one of the
// reserved values of RFC 9114 section 8.1. Peers that do not know it see an
// abrupt end.
const CodeRestart quic.ApplicationErrorCode = 0x26cc265a

var (
	// ErrClosed is what operations on a closed session return, usually wrapped
	// together with the reason of the end. It matches net.ErrClosed.
	ErrClosed = fmt.Errorf("connect-ip session: %w", net.ErrClosed)

	// ErrPeerClosed says that the peer ended the session in order: it finished
	// the stream or closed with H3_NO_ERROR.
	ErrPeerClosed = errors.New("peer ended the connect-ip session")

	// ErrBacklog says that the peer does not read its capsules: as many as the
	// session queues are waiting already. The capsule was not queued.
	ErrBacklog = errors.New("capsule backlog full")

	// ErrNotOnePacket says that the bytes given to SendPacket are not exactly one
	// IPv4 or IPv6 packet: wrong version, or a length unlike the header's.
	ErrNotOnePacket = errors.New("not exactly one ip packet")

	// ErrNoExtendedConnect says that the peer's SETTINGS lack
	// SETTINGS_ENABLE_CONNECT_PROTOCOL (RFC 9220 section 3).
	ErrNoExtendedConnect = errors.New("peer does not support extended connect (RFC 9220)")

	// ErrNoDatagrams says that the peer's SETTINGS lack SETTINGS_H3_DATAGRAM
	// (RFC 9297 section 2.1.1) or its transport parameters DATAGRAM frames.
	ErrNoDatagrams = errors.New("peer does not support http datagrams (RFC 9297)")

	errRunning   = errors.New("connect-ip session: Run was called before")
	errMalformed = errors.New("malformed capsule")
	errExcessive = errors.New("capsule exceeds a limit")
)

// PacketTooLargeError says that a packet does not fit into one datagram now.
// Nothing was sent. The limit can change at any time with the path MTU.
type PacketTooLargeError struct {
	// MaxPacketBytes is the length of the longest packet that fits.
	MaxPacketBytes int
}

// Error implements error.
func (e *PacketTooLargeError) Error() string {
	return fmt.Sprintf("packet too large for a datagram (at most %d bytes)", e.MaxPacketBytes)
}

// StatusError is the answer of a server that did not accept the request.
type StatusError struct {
	// StatusCode is outside 200 to 299.
	StatusCode int
	// Header is the header of the answer.
	Header http.Header
	// Body is the beginning of the content, at most 4,096 bytes.
	Body []byte
}

// Error implements error. It ends with what the server says about it, if that is
// plain text: the first line, without control characters, at most 1,024 bytes.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("connect-ip request refused: %d %s", e.StatusCode, http.StatusText(e.StatusCode))
	if !strings.HasPrefix(e.Header.Get("Content-Type"), "text/plain") {
		return text
	}
	line, _, _ := strings.Cut(string(e.Body), "\n")
	if line = printableLine(line); line != "" {
		text += ": " + line
	}
	return text
}

const (
	// refusalContentType is the type of a refusal's content.
	refusalContentType = "text/plain; charset=utf-8"
	// maxRefusalLineBytes is how much is said about a refusal, and how much of it is shown.
	maxRefusalLineBytes = 1 << 10
)

// printableLine makes one line of at most maxRefusalLineBytes of any text: a space
// stands for each control character, line break or other thing that does not print.
func printableLine(text string) string {
	var b strings.Builder
	for _, r := range text {
		if !unicode.IsPrint(r) {
			r = ' '
		}
		if b.Len()+utf8.RuneLen(r) > maxRefusalLineBytes {
			break
		}
		b.WriteRune(r)
	}
	return strings.TrimSpace(b.String())
}

// orderlyTransportError reports whether err is the peer's H3_NO_ERROR.
func orderlyTransportError(err error) bool {
	var h3 *http3.Error
	return errors.As(err, &h3) && h3.Remote && h3.ErrorCode == http3.ErrCodeNoError
}

package masque

// QuarterStreamID names the session in HTTP datagrams (RFC 9297 section 2.1): the request stream's ID divided by four.
func (s *Session) QuarterStreamID() uint64 { return uint64(s.str.StreamID() / 4) }

// PathBytes returns the length of the longest UDP payload that QUIC knows the path to carry, in bytes. Like
// MaxPacketSize it follows the path MTU, and is for events and timers.
func (s *Session) PathBytes() int { return s.MaxPacketSize() + s.framingBytes + quicOverheadBytes }

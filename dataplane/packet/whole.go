package packet

import "encoding/binary"

// Whole reports whether b, which begins with an IPv4 or IPv6 header of the least length, is as long as that says.
func Whole(b []byte) bool {
	if b[0]>>4 == 6 {
		return int(binary.BigEndian.Uint16(b[4:6])) == len(b)-IPv6HeaderBytes
	}
	return b[0]&0x0f >= 5 && int(b[0]&0x0f)*4 <= len(b) && int(binary.BigEndian.Uint16(b[2:4])) == len(b)
}

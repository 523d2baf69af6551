package netmon

import (
	"encoding/binary"
	"errors"
	"iter"

	"golang.org/x/sys/unix"
)

// errMessage: a netlink datagram does not hold what its lengths say.
var errMessage = errors.New("malformed netlink message")

// attributeTypes masks the flags (nested, byte order) off an attribute's type.
const attributeTypes = 0x3fff

// message is one netlink message: its type and what follows the header.
type message struct {
	kind uint16
	data []byte
}

// messages splits a datagram. Its length bounds the list.
func messages(datagram []byte) (list []message, err error) {
	for len(datagram) > 0 {
		if len(datagram) < unix.SizeofNlMsghdr {
			return list, errMessage
		}
		length := int(binary.NativeEndian.Uint32(datagram))
		if length < unix.SizeofNlMsghdr || length > len(datagram) {
			return list, errMessage
		}
		list = append(list, message{
			kind: binary.NativeEndian.Uint16(datagram[4:]), data: datagram[unix.SizeofNlMsghdr:length],
		})
		datagram = datagram[min(aligned(length), len(datagram)):]
	}
	return list, nil
}

// attributes yields type and value of the attributes in data up to the first malformed one.
func attributes(data []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(data) >= unix.SizeofRtAttr {
			length := int(binary.NativeEndian.Uint16(data))
			if length < unix.SizeofRtAttr || length > len(data) {
				return
			}
			kind := binary.NativeEndian.Uint16(data[2:]) & attributeTypes
			if !yield(kind, data[unix.SizeofRtAttr:length]) {
				return
			}
			data = data[min(aligned(length), len(data)):]
		}
	}
}

// aligned rounds up to the four bytes that netlink aligns messages and attributes to.
func aligned(length int) int { return (length + 3) &^ 3 }

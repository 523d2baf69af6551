package identity

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// smallOrder lists the y coordinates of the eight points of small order of edwards25519, little-endian,
// without the sign bit: 0 (order 4), 1 (order 1), p-1 (order 2) and the two of order 8.
const smallOrder = "0000000000000000000000000000000000000000000000000000000000000000" +
	"0100000000000000000000000000000000000000000000000000000000000000" +
	"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f" +
	"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05" +
	"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"

// checkEd25519 refuses the encodings that RFC 8032 section 5.1.3 calls invalid but verifiers let pass (y not
// below p), and the points under which one signature verifies for many messages. Keys are public, so time may
// vary.
func checkEd25519(key []byte) error {
	y := bytes.Clone(key)
	y[31] &= 0x7f
	if y[31] == 0x7f && y[0] >= 0xed && allOnes(y[1:31]) {
		return fmt.Errorf("y coordinate not reduced: %w", ErrWeakKey)
	}
	for at := 0; at < len(smallOrder); at += 64 {
		if hex.EncodeToString(y) == smallOrder[at:at+64] {
			return fmt.Errorf("point of small order: %w", ErrWeakKey)
		}
	}
	return nil
}

func allOnes(data []byte) bool {
	for _, b := range data {
		if b != 0xff {
			return false
		}
	}
	return true
}

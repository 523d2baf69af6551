package keyschedule

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"github.com/aethertunnel/aethertunnel/crypto/aead"
)

// PacketKey derives key and IV of one lane and direction in the chain's epoch. sealer is the role of the end that seals
// with it. Errors: [ErrWiped], [aead.ErrSuite].
func (c *Chain) PacketKey(lane uint8, sealer Role, suite aead.Suite) (*aead.PacketKey, error) {
	traffic, err := c.traffic(lane, sealer, suite)
	if err != nil {
		return nil, err
	}
	defer clear(traffic)
	key, err := expandLabel(traffic, "quic key", nil, suite.KeyBytes())
	if err != nil {
		return nil, err
	}
	defer clear(key)
	iv, err := expandLabel(traffic, "quic iv", nil, aead.NonceBytes)
	if err != nil {
		return nil, err
	}
	defer clear(iv)
	return suite.NewPacketKey(key, iv)
}

// HeaderKey derives the header protection key of one lane and direction, for the lane's whole life. It fails with
// [ErrEpoch] unless c is chain_0. Further errors: [ErrWiped], [aead.ErrSuite].
func (c *Chain) HeaderKey(lane uint8, sealer Role, suite aead.Suite) (*aead.HeaderKey, error) {
	if c.epoch != 0 {
		return nil, fmt.Errorf("derive header key: %w", ErrEpoch)
	}
	traffic, err := c.traffic(lane, sealer, suite)
	if err != nil {
		return nil, err
	}
	defer clear(traffic)
	key, err := expandLabel(traffic, "quic hp", nil, suite.KeyBytes())
	if err != nil {
		return nil, err
	}
	defer clear(key)
	return suite.NewHeaderKey(key)
}

// AdoptMAC proves, over a new session, that the end with the given role holds this chain. laneID names the lane, in the
// same bytes at both ends. The error is [ErrWiped].
func (c *Chain) AdoptMAC(role Role, session *Exporter, laneID []byte) ([SecretBytes]byte, error) {
	if c.secret == nil {
		return [SecretBytes]byte{}, ErrWiped
	}
	context := binary.BigEndian.AppendUint32([]byte{byte(role)}, c.epoch)
	key, err := expandLabel(c.secret[:], "adopt", context, SecretBytes)
	if err != nil {
		return [SecretBytes]byte{}, err
	}
	defer clear(key)
	h := hmac.New(sha256.New, key)
	h.Write(session[:])
	h.Write(laneID)
	return [SecretBytes]byte(h.Sum(nil)), nil
}

// CheckAdoptMAC compares mac in constant time with the one that the end with the given role makes. A wiped chain
// accepts none.
func (c *Chain) CheckAdoptMAC(role Role, session *Exporter, laneID, mac []byte) bool {
	want, err := c.AdoptMAC(role, session, laneID)
	return err == nil && hmac.Equal(want[:], mac)
}

// traffic returns a secret for the caller to wipe.
func (c *Chain) traffic(lane uint8, sealer Role, suite aead.Suite) ([]byte, error) {
	if c.secret == nil {
		return nil, ErrWiped
	}
	if !suite.Valid() {
		return nil, fmt.Errorf("derive traffic secret: %w %d", aead.ErrSuite, uint8(suite))
	}
	context := binary.BigEndian.AppendUint32(nil, c.epoch)
	context = append(context, lane, byte(sealer), byte(suite))
	return expandLabel(c.secret[:], "lane", context, SecretBytes)
}

// expandLabel is HKDF-Expand-Label (RFC 8446 section 7.1): the info is the output length in 2 bytes, then label and
// context, each after its length in 1 byte.
func expandLabel(secret []byte, label string, context []byte, length int) ([]byte, error) {
	const prefix = "tls13 "
	info := binary.BigEndian.AppendUint16(nil, uint16(length))
	info = append(info, byte(len(prefix)+len(label)))
	info = append(append(info, prefix...), label...)
	info = append(append(info, byte(len(context))), context...)
	out, err := hkdf.Expand(sha256.New, secret, string(info), length)
	if err != nil {
		return nil, fmt.Errorf("derive %q: %w", label, err)
	}
	return out, nil
}

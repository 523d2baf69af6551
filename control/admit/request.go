package admit

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

const (
	// MaxRequest bounds the binary form of a [JoinRequest] in bytes.
	MaxRequest = 16 << 10
	// MaxRoutes bounds how many routes a node may offer, and an invite may approve.
	MaxRoutes = 64
	// MinBinding is the least length of a channel binding in bytes.
	MinBinding = 32

	requestVersion = 1
	maxRawName     = 255
)

// JoinRequest is what an invitee sends beside the invite's secret.
type JoinRequest struct {
	// Public holds the invitee's keys.
	Public identity.Public
	// Name is what the invitee would like to be called: at most 255 bytes of anything.
	Name string
	// Routes are the subnets it offers, at most [MaxRoutes].
	Routes []netip.Prefix
	// Signature is the hybrid signature of [NewJoinRequest].
	Signature []byte
}

// NewJoinRequest makes a request signed with key for one invite and one session. Errors: [ErrRequest].
func NewJoinRequest(
	key *identity.Private, name string, routes []netip.Prefix, proof Proof,
) (JoinRequest, error) {
	r := JoinRequest{Public: key.Public(), Name: name, Routes: slices.Clone(routes)}
	message, err := r.signed(proof)
	if err != nil {
		return JoinRequest{}, err
	}
	if r.Signature, err = key.SignHybrid(identity.LabelJoin, message); err != nil {
		return JoinRequest{}, err
	}
	return r, nil
}

// Proof is what a [JoinRequest] is signed for besides its own content.
type Proof struct {
	// Secret is the secret of the invite.
	Secret token.Secret
	// Binding ties the request to one TLS session: at least [MinBinding] bytes that both ends export from it
	// (RFC 8446 section 7.5).
	Binding []byte
}

// verify checks that the keys in the request have signed it for this session and this invite.
func (r JoinRequest) verify(proof Proof) error {
	message, err := r.signed(proof)
	if err != nil {
		return err
	}
	if err := r.Public.VerifyHybrid(identity.LabelJoin, message, r.Signature); err != nil {
		return fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return nil
}

// signed returns what the signature is over: the binding with its length, the hash of the secret, the
// request.
func (r JoinRequest) signed(proof Proof) ([]byte, error) {
	if len(proof.Binding) < MinBinding || len(proof.Binding) > MaxRequest {
		return nil, fmt.Errorf("%w: channel binding of %d bytes", ErrRequest, len(proof.Binding))
	}
	message := binary.BigEndian.AppendUint32(nil, uint32(len(proof.Binding)))
	message = append(message, proof.Binding...)
	hash := proof.Secret.Hash()
	message = append(message, hash[:]...)
	return r.appendUnsigned(message)
}

// MarshalBinary implements [encoding.BinaryMarshaler]:
//
//	version (1) ‖ public keys (1985) ‖ name length (1) ‖ name ‖ routes (1) ‖ routes … ‖ signature (3373)
//
// with each route as address length in bytes (1), prefix length in bits (1) and address.
func (r JoinRequest) MarshalBinary() ([]byte, error) {
	if len(r.Signature) != identity.SignatureSize {
		return nil, fmt.Errorf("%w: signature of %d bytes", ErrRequest, len(r.Signature))
	}
	encoded, err := r.appendUnsigned(nil)
	return append(encoded, r.Signature...), err
}

func (r JoinRequest) appendUnsigned(out []byte) ([]byte, error) {
	public, err := r.Public.MarshalBinary()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if len(r.Name) > maxRawName || len(r.Routes) > MaxRoutes {
		return nil, fmt.Errorf("%w: name of %d bytes, %d routes", ErrRequest, len(r.Name), len(r.Routes))
	}
	out = append(out, requestVersion)
	out = append(out, public...)
	out = append(out, byte(len(r.Name)))
	out = append(out, r.Name...)
	out = append(out, byte(len(r.Routes)))
	for _, route := range r.Routes {
		if !route.IsValid() || route != route.Masked() || route.Addr().Is4In6() {
			return nil, fmt.Errorf("%w: %s is not a route", ErrRequest, route)
		}
		address := route.Addr().AsSlice()
		out = append(out, byte(len(address)), byte(route.Bits()))
		out = append(out, address...)
	}
	return out, nil
}

// ParseJoinRequest reads the form of [JoinRequest.MarshalBinary]. It reads at most [MaxRequest] bytes,
// accepts one encoding per request, and does not check the signature. Errors: [ErrRequest].
func ParseJoinRequest(data []byte) (JoinRequest, error) {
	if len(data) > MaxRequest {
		return JoinRequest{}, fmt.Errorf("%w: %d bytes", ErrRequest, len(data))
	}
	in := reader{rest: data}
	if version := in.byte(); version != requestVersion {
		return JoinRequest{}, fmt.Errorf("%w: version %d", ErrRequest, version)
	}
	var r JoinRequest
	public := in.take(identity.PublicSize)
	r.Name = string(in.take(int(in.byte())))
	routes := int(in.byte())
	if routes > MaxRoutes {
		return JoinRequest{}, fmt.Errorf("%w: %d routes", ErrRequest, routes)
	}
	for range routes {
		r.Routes = append(r.Routes, in.prefix())
	}
	r.Signature = slices.Clone(in.take(identity.SignatureSize))
	if in.failed || len(in.rest) > 0 {
		return JoinRequest{}, fmt.Errorf("%w: malformed", ErrRequest)
	}
	// Last, since it costs the most.
	if err := r.Public.UnmarshalBinary(public); err != nil {
		return JoinRequest{}, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return r, nil
}

// reader takes fields from the front. After a failure it gives zeros, so that one check at the end is enough.
type reader struct {
	rest   []byte
	failed bool
}

func (r *reader) take(size int) []byte {
	if size > len(r.rest) {
		r.failed, r.rest = true, nil
		return nil
	}
	field := r.rest[:size]
	r.rest = r.rest[size:]
	return field
}

func (r *reader) byte() byte {
	if field := r.take(1); field != nil {
		return field[0]
	}
	return 0
}

func (r *reader) prefix() netip.Prefix {
	size, bits := int(r.byte()), int(r.byte())
	address, ok := netip.AddrFromSlice(r.take(size))
	prefix := netip.PrefixFrom(address, bits)
	if !ok || !prefix.IsValid() || prefix != prefix.Masked() || address.Is4In6() {
		r.failed = true
	}
	return prefix
}

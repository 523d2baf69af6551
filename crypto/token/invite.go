package token

import (
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

const (
	// MaxInvite bounds the length of an invite in bytes.
	MaxInvite = 1024
	// MaxAddresses bounds the number of gateway addresses in an invite.
	MaxAddresses = 16

	// Scheme begins every invite.
	Scheme = "aether://"

	inviteVersion = 1
	checkSize     = 4
	inviteSize    = 1 + identity.IDSize + SecretSize + checkSize
	maxQuotes     = 8 // layers of quotes and space around a pasted line that are taken off
)

// Invite is what a new node needs to join: where the gateway is, who it is, and the secret that admits.
type Invite struct {
	// Gateway is the id that the gateway must prove. It is what the invitee trusts, whatever address answers.
	Gateway identity.ID
	// Secret admits whoever knows it, as often as the gateway allows.
	Secret Secret
	// Addresses lists where the gateway may be reached, 1 to [MaxAddresses] of HOST:PORT as [ParseAddress] takes
	// them. The order carries no meaning.
	Addresses []string
}

// Encode returns the line to hand to the invitee, secret included. Addresses come out in canonical form,
// doubled ones once. Errors: [ErrAddress], [ErrTooLong], [ErrNoSecret].
func (i Invite) Encode() (string, error) {
	addresses, err := canonicalAddresses(i.Addresses)
	if err != nil {
		return "", err
	}
	list := strings.Join(addresses, ",")
	if i.Secret.IsZero() {
		return "", ErrNoSecret
	}
	code := append([]byte{inviteVersion}, i.Gateway[:]...)
	code = append(code, i.Secret.box.raw[:]...)
	code = append(code, check(list, code)...)
	line := Scheme + list + "/" + base64.RawURLEncoding.EncodeToString(code)
	if len(line) > MaxInvite {
		return "", fmt.Errorf("%d gateway addresses: %w", len(addresses), ErrTooLong)
	}
	return line, nil
}

// Parse reads an invite. White space and quotes around it are taken off, since people paste lines with what
// stood around them. Errors, none of which quotes the secret: [ErrNotInvite], [ErrTooLong], [ErrMistyped],
// [ErrVersion], [ErrAddress].
func Parse(text string) (Invite, error) {
	line, err := unwrap(text)
	if err != nil {
		return Invite{}, err
	}
	if len(line) < len(Scheme) || !strings.EqualFold(line[:len(Scheme)], Scheme) {
		return Invite{}, ErrNotInvite
	}
	list, encoded, ok := strings.Cut(line[len(Scheme):], "/")
	if !ok || list == "" || encoded == "" {
		return Invite{}, ErrMistyped
	}
	// Names do not care for case, so the check does not either.
	list = strings.ToLower(list)
	code, ok := decode(encoded)
	if !ok || len(code) <= checkSize {
		return Invite{}, ErrMistyped
	}
	body, sum := code[:len(code)-checkSize], code[len(code)-checkSize:]
	if subtle.ConstantTimeCompare(check(list, body), sum) != 1 {
		return Invite{}, ErrMistyped
	}
	if body[0] != inviteVersion {
		return Invite{}, fmt.Errorf("%w (version %d)", ErrVersion, body[0])
	}
	if len(code) != inviteSize {
		return Invite{}, ErrMistyped
	}
	addresses, err := canonicalAddresses(strings.Split(list, ","))
	if err != nil {
		return Invite{}, err
	}
	return Invite{
		Gateway:   identity.ID(body[1:]),
		Secret:    secretOf([SecretSize]byte(body[1+identity.IDSize:])),
		Addresses: addresses,
	}, nil
}

// String returns the invite without its secret, for logs. The line itself comes from [Invite.Encode].
func (i Invite) String() string {
	return fmt.Sprintf("%s%s/%s gateway %s", Scheme, strings.Join(i.Addresses, ","), redacted, i.Gateway.Short())
}

// GoString returns what [Invite.String] does.
func (i Invite) GoString() string { return i.String() }

// LogValue implements [slog.LogValuer] with the form of [Invite.String].
func (i Invite) LogValue() slog.Value { return slog.StringValue(i.String()) }

// Format implements [fmt.Formatter] with the form of [Invite.String], whatever the verb.
func (i Invite) Format(state fmt.State, _ rune) {
	_, _ = io.WriteString(state, i.String()) // as in Secret.Format
}

func check(addressList string, body []byte) []byte {
	sum := identity.LabelInviteCheck.Sum([]byte(addressList), body)
	return sum[:checkSize]
}

// decode is strict: no line breaks inside, no spare bits, so that an invite has one text only.
func decode(encoded string) ([]byte, bool) {
	if strings.ContainsAny(encoded, "\r\n") {
		return nil, false
	}
	code, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	return code, err == nil
}

func canonicalAddresses(addresses []string) ([]string, error) {
	if len(addresses) == 0 || len(addresses) > MaxAddresses {
		return nil, fmt.Errorf("%w: %d addresses instead of 1 to %d", ErrAddress, len(addresses), MaxAddresses)
	}
	canonical := make([]string, 0, len(addresses))
	for _, address := range addresses {
		one, err := ParseAddress(address)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(canonical, one) {
			canonical = append(canonical, one)
		}
	}
	return canonical, nil
}

// unwrap takes off space and quotes. The length is checked first, so that strangers' text costs little.
func unwrap(text string) (string, error) {
	if len(text) > 2*MaxInvite {
		return "", ErrTooLong
	}
	for range maxQuotes {
		inner := strings.Trim(strings.TrimSpace(text), "'\"`‘’“”«»")
		if inner == text {
			break
		}
		text = inner
	}
	if len(text) > MaxInvite {
		return "", ErrTooLong
	}
	return text, nil
}

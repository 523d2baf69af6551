package portmap

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

var (
	// errNoAnswer is the end of a bounded series of questions.
	errNoAnswer = errors.New("no answer")
	// errNotSpoken is an answer that says that the protocol is not spoken.
	errNotSpoken = errors.New("protocol not spoken")
	// errUnfinished stands for a question that was given up because a better one was answered.
	errUnfinished = errors.New("not waited for")
	// errNoUplink is an answer without an external address.
	errNoUplink = errors.New("router has no external IPv4 address, is its uplink down?")
	// errMalformed is an answer that cannot be what it claims to be.
	errMalformed = errors.New("malformed answer")
)

// NoAnswerError says that no router answered in any of the protocols.
type NoAnswerError struct {
	// Gateway is the router that was asked.
	Gateway netip.Addr
	// Port is the local UDP port that nobody forwards.
	Port uint16
	// Tried holds one error for each protocol.
	Tried []error
}

// Error names the router and the remedy.
func (e *NoAnswerError) Error() string {
	return fmt.Sprintf("router %s answers neither PCP, NAT-PMP nor UPnP; %s", e.Gateway, e.Remedy())
}

// Remedy says what the operator can do.
func (e *NoAnswerError) Remedy() string {
	return fmt.Sprintf("switch one of them on in the router or forward UDP port %d to this host there", e.Port)
}

// Unwrap gives the errors of the protocols.
func (e *NoAnswerError) Unwrap() []error { return e.Tried }

// RefusedError says that the router answered and refused.
type RefusedError struct {
	// Protocol is the one that was refused.
	Protocol Protocol
	// Code is the result code of that protocol, or the HTTP status when UPnP gave no code of its own.
	Code int
	// Reason describes the code.
	Reason string
	// RetryAfter is how long the router expects the refusal to last; 0 when it does not say.
	RetryAfter time.Duration
	// Port is the local UDP port.
	Port uint16
}

// Error names the protocol, the reason and the remedy.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("router refuses the %s mapping: %s (code %d); %s", e.Protocol, e.Reason, e.Code,
		e.Remedy())
}

// Remedy says what the operator can do.
func (e *RefusedError) Remedy() string {
	return fmt.Sprintf("allow port mappings for this host in the router or forward UDP port %d there", e.Port)
}

// DoubleNATError says that the mapping exists but leads nowhere, because the router's own external address is
// not public: another router or the provider translates once more.
type DoubleNATError struct {
	// Protocol is the one that granted the mapping.
	Protocol Protocol
	// External is the address and port that the router believes to be external.
	External netip.AddrPort
	// CarrierGrade is set for shared provider space (RFC 6598), where only the provider can help.
	CarrierGrade bool
}

// Error names the address and the remedy.
func (e *DoubleNATError) Error() string {
	return fmt.Sprintf("router's external address %s is not public; %s", e.External.Addr(), e.Remedy())
}

// Remedy says what the operator can do.
func (e *DoubleNATError) Remedy() string {
	if e.CarrierGrade {
		return "the provider translates addresses (CGNAT): ask it for a public IPv4 address, use IPv6, " +
			"or run the gateway on a host with a public address"
	}
	return fmt.Sprintf("forward UDP port %d of the outer router to %s and name the public address with "+
		"--advertise, or set the inner router to bridge mode", e.External.Port(), e.External.Addr())
}

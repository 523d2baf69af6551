package admit

import (
	"errors"
	"fmt"
	"time"
)

var (
	// ErrNetworkExists is returned when the state already has a network.
	ErrNetworkExists = errors.New("this state already has a network")
	// ErrNoNetwork is returned when the state has no network.
	ErrNoNetwork = errors.New("this state has no network")
	// ErrPrefix is returned for a prefix that cannot hold a network's or a route's addresses.
	ErrPrefix = errors.New("bad prefix")
	// ErrPrefixConflict is returned when a prefix overlaps one that is in use.
	ErrPrefixConflict = errors.New("prefix overlaps one in use")
	// ErrNoFreePrefix is returned when every prefix that a network could choose for itself is in use.
	ErrNoFreePrefix = errors.New("no free prefix for the network; choose one with --network")
	// ErrPoolExhausted is returned when a network prefix has no address left.
	ErrPoolExhausted = errors.New("address pool exhausted")

	// ErrInviteUnknown is returned for an invite that this gateway did not make, or has forgotten.
	ErrInviteUnknown = errors.New("invite is not known here: it is from another network, or expired long ago")
	// ErrInviteExpired is returned for an invite past its time.
	ErrInviteExpired = errors.New("invite has expired; ask for a new one")
	// ErrInviteUsed is returned for an invite that has been used as often as it may be.
	ErrInviteUsed = errors.New("invite has been used already; ask for a new one")
	// ErrInviteOptions is returned for an invite that must not be made.
	ErrInviteOptions = errors.New("bad invite options")
	// ErrAdmission is returned for an answer of a gateway that does not hold together.
	ErrAdmission = errors.New("bad answer from the gateway")
	// ErrRequest is returned for a join request that is malformed or not signed by the keys in it.
	ErrRequest = errors.New("bad join request")
	// ErrBearer is returned for a bearer token that admits nobody, whatever the reason: a stranger learns no
	// more.
	ErrBearer = errors.New("bearer token not accepted")

	// ErrRevoked is returned for a node that has lost admission.
	ErrRevoked = errors.New("node has been revoked")
	// ErrUnknownNode is returned for a node that is not in the network.
	ErrUnknownNode = errors.New("node is not known")
	// ErrGatewayNode is returned for what cannot be done to the gateway itself.
	ErrGatewayNode = errors.New("that node is the gateway itself")
	// ErrTooManyRoutes is returned when a node offers more than [MaxRoutes].
	ErrTooManyRoutes = errors.New("too many routes")

	// ErrCertificate is returned for a certificate that is malformed or not made for this use.
	ErrCertificate = errors.New("bad certificate")
	// ErrWrongNetwork is returned for a certificate of another network.
	ErrWrongNetwork = errors.New("certificate is from another network")
	// ErrWrongGateway is returned when whoever answered at the gateway's address is not the expected gateway.
	ErrWrongGateway = errors.New("wrong gateway id")
	// ErrExpired is matched by a [*ValidityError] of a certificate past its time.
	ErrExpired = errors.New("certificate has expired")
	// ErrNotYetValid is matched by a [*ValidityError] of a certificate before its time.
	ErrNotYetValid = errors.New("certificate is not valid yet")
)

// ValidityError is returned for a certificate outside its time. It matches [ErrExpired] or [ErrNotYetValid].
type ValidityError struct {
	// Now is the time on this machine.
	Now time.Time
	// NotBefore and NotAfter bound the certificate's life.
	NotBefore, NotAfter time.Time
}

// Error tells both times, since a wrong clock is the likely cause.
func (e *ValidityError) Error() string {
	const layout = time.RFC3339
	now := e.Now.UTC().Format(layout)
	if e.Now.Before(e.NotBefore) {
		return fmt.Sprintf("%v: it begins at %s and the clock here says %s; check the clock of both machines",
			ErrNotYetValid, e.NotBefore.UTC().Format(layout), now)
	}
	return fmt.Sprintf("%v: it ended at %s and the clock here says %s; check the clock, or join again",
		ErrExpired, e.NotAfter.UTC().Format(layout), now)
}

// Is makes the error match [ErrExpired] or [ErrNotYetValid].
func (e *ValidityError) Is(target error) bool {
	if e.Now.Before(e.NotBefore) {
		return target == ErrNotYetValid
	}
	return target == ErrExpired
}

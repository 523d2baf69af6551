package daemon

import (
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

// state is what is kept between starts.
type state struct {
	dir        string
	store      *store.Store
	key        *identity.Private
	network    *store.Network    // set on a gateway
	membership *store.Membership // set on a member
}

// openState locks and reads the state directory.
func openState(dir string) (*state, error) {
	s, err := store.Open(dir)
	if errors.Is(err, store.ErrInUse) {
		return nil, fmt.Errorf("%w: %s; see `aetherd status --state %s`, or name another with --state DIR",
			ErrAlreadyRunning, dir, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("open state: %w", err)
	}
	st := &state{dir: dir, store: s}
	if err := st.read(); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return st, nil
}

// checkStateDir refuses a directory in which anybody could replace the keys and the journal of changes, which root undoes.
func checkStateDir(dir string) error {
	info, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("state directory: %w", err)
	}
	if runtime.GOOS != "windows" && info.IsDir() && info.Mode().Perm()&0o002 != 0 {
		return fmt.Errorf("state directory %s can be written by everybody (mode %#o): "+
			"name one of aetherd's own with --state DIR, or, if it is that, chmod 700 %s", dir, info.Mode().Perm(), dir)
	}
	return nil
}

// Busy reports whether a daemon has the state directory, one that is starting or ending among them. It makes nothing.
func Busy(dir string) (bool, error) { return store.Held(dir) }

func (s *state) read() error {
	var err error
	if s.key, _, err = store.LoadOrCreateKey(s.dir, rand.Reader); err != nil {
		return fmt.Errorf("node key: %w", err)
	}
	return s.store.View(func(tx *store.Tx) error {
		network, err := tx.Network()
		if err == nil {
			s.network = &network
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		membership, err := tx.Membership()
		if err == nil {
			s.membership = &membership
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
		return nil
	})
}

func (s *state) close() error { return s.store.Close() }

func (s *state) saveMembership(m store.Membership) error {
	return s.store.Update(func(tx *store.Tx) error { return tx.SetMembership(m) })
}

// plan is what this start is going to be.
type plan struct {
	role   config.Role
	invite *token.Invite // to be redeemed first
}

// parseInvite reads the invite as typed; nil when there is none.
func parseInvite(text string) (*token.Invite, error) {
	if text == "" {
		return nil, nil
	}
	invite, err := token.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("invite: %w", err)
	}
	return &invite, nil
}

// decide finds the role from what was asked and what the state holds. The same invite given again to a member that has
// joined by it is how people start a program a second time, and means "reconnect".
func (s *state) decide(invite *token.Invite) (plan, error) {
	if invite == nil {
		if s.membership != nil {
			return plan{role: config.RoleMember}, nil
		}
		return plan{role: config.RoleGateway}, nil
	}
	switch {
	case s.network != nil:
		return plan{}, fmt.Errorf("state %s is a gateway's, which cannot join another network: "+
			"use --state DIR with a fresh directory", s.dir)
	case s.membership != nil && s.membership.Gateway == invite.Gateway:
		return plan{role: config.RoleMember}, s.learnAddresses(invite.Addresses)
	case s.membership != nil:
		return plan{}, fmt.Errorf("state %s belongs to network %q already: "+
			"use --state DIR with a fresh directory to join another", s.dir, s.membership.NetworkName)
	}
	return plan{role: config.RoleMember, invite: invite}, nil
}

// learnAddresses keeps the addresses of an invite from the gateway that we know, newest first: it may have moved.
func (s *state) learnAddresses(addresses []string) error {
	updated := *s.membership
	updated.GatewayAddresses = slices.Clone(addresses)
	for _, a := range s.membership.GatewayAddresses {
		if !slices.Contains(updated.GatewayAddresses, a) && len(updated.GatewayAddresses) < token.MaxAddresses {
			updated.GatewayAddresses = append(updated.GatewayAddresses, a)
		}
	}
	s.membership = &updated
	return s.saveMembership(updated)
}

// resetKey derives the key of a socket's stateless resets (RFC 9000 section 10.3) from the node's own, so that it survives
// restarts and peers learn of a crash with their next packet. Each socket has its own: with one for all, a packet of one
// socket's connection, sent to another, would be answered with the token that ends the connection.
func (s *state) resetKey(socket string) (*quic.StatelessResetKey, error) {
	derived, err := s.derive("aethertunnel stateless reset v1 "+socket, len(quic.StatelessResetKey{}))
	if err != nil {
		return nil, err
	}
	return (*quic.StatelessResetKey)(derived), nil
}

// mappingNonce derives the nonce that proves to the router that a port mapping is ours (RFC 6887 section 11.1), so that
// a start after a crash can renew the old one.
func (s *state) mappingNonce() ([12]byte, error) {
	derived, err := s.derive("aethertunnel port mapping v1", 12)
	if err != nil {
		return [12]byte{}, err
	}
	return [12]byte(derived), nil
}

// derive makes a secret of its own for one use out of the node's keys.
func (s *state) derive(use string, size int) ([]byte, error) {
	secret, err := s.key.Encode()
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	defer clear(secret)
	derived, err := hkdf.Key(sha256.New, secret, nil, use, size)
	if err != nil {
		return nil, fmt.Errorf("derive key: %w", err)
	}
	return derived, nil
}

func now() time.Time { return time.Now() }

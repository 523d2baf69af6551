package daemon

import (
	"crypto/rand"
	"errors"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/admit"
	"github.com/aethertunnel/aethertunnel/control/config"
	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

func open(t *testing.T, dir string) *state {
	t.Helper()
	s, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close() })
	return s
}

func inviteFrom(t *testing.T, gateway identity.ID, addresses ...string) *token.Invite {
	t.Helper()
	secret, err := token.NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &token.Invite{Gateway: gateway, Secret: secret, Addresses: addresses}
}

func TestRoleOfAFreshState(t *testing.T) {
	s := open(t, t.TempDir())
	if p, err := s.decide(nil); err != nil || p.role != config.RoleGateway || p.invite != nil {
		t.Errorf("without an invite: %+v, %v", p, err)
	}
	invite := inviteFrom(t, identity.ID{1}, "192.0.2.1:443")
	if p, err := s.decide(invite); err != nil || p.role != config.RoleMember || p.invite != invite {
		t.Errorf("with an invite: %+v, %v", p, err)
	}
}

func TestRoleOfAMember(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	gateway, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	membership := store.Membership{
		NetworkName: "home", Gateway: gateway.ID(), GatewayPublic: gateway.Public(), GatewayAddresses: []string{"192.0.2.1:443"},
	}
	if err := s.saveMembership(membership); err != nil {
		t.Fatal(err)
	}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	if p, err := s.decide(nil); err != nil || p.role != config.RoleMember || p.invite != nil {
		t.Errorf("reconnect: %+v, %v", p, err)
	}
	again := inviteFrom(t, gateway.ID(), "198.51.100.1:443")
	if p, err := s.decide(again); err != nil || p.role != config.RoleMember || p.invite != nil {
		t.Errorf("the same gateway's invite again: %+v, %v", p, err)
	}
	if got := s.membership.GatewayAddresses; len(got) != 2 || got[0] != "198.51.100.1:443" {
		t.Errorf("a fresh invite's addresses are not tried first: %v", got)
	}
	if _, err := s.decide(inviteFrom(t, identity.ID{9}, "192.0.2.9:443")); err == nil ||
		!strings.Contains(err.Error(), `belongs to network "home" already`) {
		t.Errorf("another network's invite: %v", err)
	}
}

func TestRoleOfAGateway(t *testing.T) {
	s := open(t, t.TempDir())
	_, err := admit.CreateNetwork(s.store, admit.Config{Random: rand.Reader, Now: time.Now}, admit.NetworkParams{
		Name: "home", Gateway: s.key.Public(), GatewayName: "router",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.read(); err != nil {
		t.Fatal(err)
	}
	if p, err := s.decide(nil); err != nil || p.role != config.RoleGateway {
		t.Errorf("restart: %+v, %v", p, err)
	}
	if _, err := s.decide(inviteFrom(t, identity.ID{9}, "192.0.2.9:443")); err == nil {
		t.Error("a gateway joined another network with the same state")
	}
}

func TestSecondDaemonOnTheSameState(t *testing.T) {
	dir := t.TempDir()
	open(t, dir)
	if _, err := openState(dir); !errors.Is(err, ErrAlreadyRunning) {
		t.Errorf("second opener: %v", err)
	}
}

// What is derived from the node's keys is the same after a restart, and different for each use.
func TestDerivedKeys(t *testing.T) {
	dir := t.TempDir()
	first, err := openState(dir)
	if err != nil {
		t.Fatal(err)
	}
	reset, err := first.resetKey("*:443")
	if err != nil {
		t.Fatal(err)
	}
	nonce, err := first.mappingNonce()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.close(); err != nil {
		t.Fatal(err)
	}
	second := open(t, dir)
	if other, err := second.resetKey("*:8443"); err != nil || *other == *reset {
		t.Errorf("two sockets share a reset key, or %v", err)
	}
	again, err := second.resetKey("*:443")
	if err != nil || *again != *reset {
		t.Errorf("the reset key did not survive: %v", err)
	}
	if string(reset[:12]) == string(nonce[:]) {
		t.Error("two uses share a secret")
	}
}

func TestCleanWithoutState(t *testing.T) {
	dir := t.TempDir() + "/none"
	if _, err := Clean(dir, nil); err == nil || !strings.Contains(err.Error(), "nothing to undo") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Error("asking made the directory")
	}
}

// Everybody's directory is no place for keys, nor for a journal that root acts on.
func TestStateThatEverybodyCanWriteIsRefused(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no permission bits")
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := checkStateDir(dir); err == nil || !strings.Contains(err.Error(), "chmod 700 "+dir) {
		t.Errorf("Run: %v", err)
	}
	if err := os.WriteFile(dir+"/state.db", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Clean(dir, nil); err == nil || !strings.Contains(err.Error(), "written by everybody") {
		t.Errorf("Clean: %v", err)
	}
	for _, good := range []string{t.TempDir(), dir + "/none"} {
		if err := checkStateDir(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
}

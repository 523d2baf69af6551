package store

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/aethertunnel/aethertunnel/crypto/identity"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDirVariable); dir != "" {
		crashChild(dir)
	}
	goleak.VerifyTestMain(m)
}

func openNew(t *testing.T) (*Store, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "state")
	return reopen(t, dir), dir
}

func reopen(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func update(t *testing.T, s *Store, fn func(tx *Tx) error) {
	t.Helper()
	if err := s.Update(fn); err != nil {
		t.Fatal(err)
	}
}

func testNode(number byte, name string, addresses ...string) Node {
	n := Node{ID: identity.ID{number}, Name: name, Role: RoleMember, Created: time.Unix(1000, 0).UTC()}
	for _, address := range addresses {
		n.Addresses = append(n.Addresses, netip.MustParseAddr(address))
	}
	return n
}

func TestRecordsComeBack(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	key, err := identity.Generate(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2030, 1, 2, 3, 4, 5, 6, time.UTC)
	v4, v6 := netip.MustParsePrefix("100.70.0.0/16"), netip.MustParsePrefix("fd00:1:2::/48")
	network := Network{
		ID: NetworkID{1, 2}, Name: "home", Gateway: key.ID(), Prefixes: []netip.Prefix{v4, v6},
		CACertificate: []byte("certificate"), CAKey: NewSecret([]byte("key")), Created: now,
	}
	node := Node{
		ID: key.ID(), Name: "laptop", Public: key.Public(), Created: now, Revoked: now.Add(time.Hour),
		LastSeen:  now.Add(time.Minute),
		Addresses: []netip.Addr{v4.Addr().Next(), v6.Addr().Next()}, Role: RoleGateway, Certificate: []byte("leaf"),
		CertificateSerial: "0a", Stock: true,
	}
	invite := Invite{
		Hash: [32]byte{9}, UsesLeft: 3, Created: now, Expires: now.Add(time.Hour), Name: "phone",
		Routes: []netip.Prefix{netip.MustParsePrefix("192.168.7.0/24")}, Stock: true,
	}
	route := Route{
		Node: key.ID(), Prefix: netip.MustParsePrefix("fd12::/64"), Offered: now,
		Approved: now.Add(1),
	}
	membership := Membership{
		Network: NetworkID{3}, NetworkName: "office", Gateway: key.ID(), GatewayPublic: key.Public(),
		GatewayAddresses: []string{"gw:443"}, CACertificate: []byte("ca"),
		Chain: [][]byte{[]byte("a"), []byte("b")}, Name: "laptop", Addresses: node.Addresses,
		Prefixes: network.Prefixes,
	}
	selectors := HostSelectors{Table: 51820, Mark: 0x0ae70001, Priority: 100}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.SetNetwork(network), tx.PutNode(node), tx.PutInvite(invite), tx.PutRoute(route),
			tx.SetMembership(membership), tx.SetHostSelectors(selectors), tx.SetCursor(v4, 7),
			tx.SetRedeemed(invite.Hash, node.ID))
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, dir)
	err = s.View(func(tx *Tx) error {
		check := func(name string, got any, err error, want any) {
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\n got %#v\nwant %#v", name, err, got, want)
			}
		}
		gotNetwork, err := tx.Network()
		check("network", gotNetwork, err, network)
		check("CA key", gotNetwork.CAKey.Reveal(), nil, []byte("key"))
		gotNode, err := tx.Node(node.ID)
		check("node", withoutKeys(gotNode), err, withoutKeys(node))
		if !gotNode.Public.Equal(node.Public) {
			t.Error("node's keys differ")
		}
		byName, err := tx.NodeByName("laptop")
		check("node by name", withoutKeys(byName), err, withoutKeys(node))
		byAddress, err := tx.NodeByAddress(node.Addresses[1])
		check("node by address", withoutKeys(byAddress), err, withoutKeys(node))
		gotInvite, err := tx.Invite(invite.Hash)
		check("invite", gotInvite, err, invite)
		invites, err := tx.Invites()
		check("invites", invites, err, []Invite{invite})
		routes, err := tx.Routes()
		check("routes", routes, err, []Route{route})
		gotMembership, err := tx.Membership()
		equalKeys := gotMembership.GatewayPublic.Equal(membership.GatewayPublic)
		gotMembership.GatewayPublic, membership.GatewayPublic = identity.Public{}, identity.Public{}
		check("membership", gotMembership, err, membership)
		check("membership's keys", equalKeys, nil, true)
		gotSelectors, err := tx.HostSelectors()
		check("selectors", gotSelectors, err, selectors)
		cursor, err := tx.Cursor(v4)
		check("cursor", cursor, err, uint64(7))
		check("redeemed", tx.Redeemed(invite.Hash, node.ID), nil, true)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func withoutKeys(n Node) Node {
	n.Public = identity.Public{}
	return n
}

func TestNothingThere(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	update(t, s, func(tx *Tx) error {
		_, e1 := tx.Network()
		_, e2 := tx.Membership()
		_, e3 := tx.HostSelectors()
		_, e4 := tx.Node(identity.ID{1})
		_, e5 := tx.NodeByName("")
		_, e6 := tx.NodeByAddress(netip.Addr{})
		_, e7 := tx.Invite([32]byte{})
		_, e8 := tx.Route(identity.ID{}, netip.MustParsePrefix("::/0"))
		_, _, e9 := tx.OldestFreed(netip.MustParsePrefix("::/0"))
		for i, err := range []error{e1, e2, e3, e4, e5, e6, e7, e8, e9} {
			if !errors.Is(err, ErrNotFound) {
				t.Errorf("record %d: %v", i+1, err)
			}
		}
		if cursor, err := tx.Cursor(netip.MustParsePrefix("::/0")); err != nil || cursor != 0 {
			t.Errorf("cursor %d, %v", cursor, err)
		}
		return errors.Join(tx.DeleteMembership(), tx.DeleteInvite([32]byte{}),
			tx.DeleteRoute(identity.ID{}, netip.Prefix{}))
	})
}

func TestNamesAndAddressesAreUnique(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	update(t, s, func(tx *Tx) error { return tx.PutNode(testNode(1, "a", "10.0.0.1", "fd00::1")) })
	for _, other := range []Node{
		testNode(2, "a", "10.0.0.2"), testNode(2, "b", "10.0.0.1"), testNode(2, "b", "10.0.0.2", "fd00::1"),
	} {
		if err := s.Update(func(tx *Tx) error { return tx.PutNode(other) }); !errors.Is(err, ErrTaken) {
			t.Errorf("%s %v: %v", other.Name, other.Addresses, err)
		}
	}
	update(t, s, func(tx *Tx) error { // the refused ones have left nothing, and a node can change everything
		return errors.Join(tx.PutNode(testNode(1, "c", "10.0.0.3")),
			tx.PutNode(testNode(2, "a", "10.0.0.1", "fd00::1")))
	})
	err := s.View(func(tx *Tx) error {
		if n, err := tx.NodeByName("a"); err != nil || n.ID != (identity.ID{2}) {
			t.Errorf("a is %v, %v", n.ID, err)
		}
		if tx.HasName("b") || !tx.HasName("c") {
			t.Error("names are not those of the nodes")
		}
		nodes, err := tx.Nodes()
		if len(nodes) != 2 || nodes[0].Name != "a" || nodes[1].Name != "c" {
			t.Errorf("nodes %v", nodes)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, bad := range []Node{
		{Name: "x"},
		{ID: identity.ID{1}},
		{ID: identity.ID{1}, Name: "x", Addresses: make([]netip.Addr, 1)},
	} {
		if err := s.Update(func(tx *Tx) error { return tx.PutNode(bad) }); err == nil {
			t.Errorf("%v was accepted", bad)
		}
	}
}

func TestFreedAddressesInOrder(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	v4, v6 := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")
	revoke := func(n Node, second int64) Node {
		n.Revoked = time.Unix(second, 0)
		return n
	}
	late := revoke(testNode(1, "late", "10.0.0.1", "fd00::1"), 300)
	early := revoke(testNode(2, "early", "10.0.0.2"), 200)
	elsewhere := revoke(testNode(3, "elsewhere", "10.9.0.3", "fd00:9::3"), 100)
	expect := func(prefix netip.Prefix, want string) {
		t.Helper()
		err := s.View(func(tx *Tx) error {
			address, _, err := tx.OldestFreed(prefix)
			if want == "" && errors.Is(err, ErrNotFound) {
				return nil
			}
			if err == nil && address.String() != want {
				t.Errorf("oldest freed in %s is %s, not %s", prefix, address, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutNode(late), tx.PutNode(early), tx.PutNode(elsewhere),
			tx.PutNode(testNode(4, "live", "10.0.0.4")))
	})
	expect(v4, "10.0.0.2")
	expect(v6, "fd00::1")
	early.Revoked = time.Time{}
	update(t, s, func(tx *Tx) error { return tx.PutNode(early) })
	expect(v4, "10.0.0.1")
	late.Addresses = late.Addresses[:1]
	update(t, s, func(tx *Tx) error { return tx.PutNode(late) })
	expect(v6, "")
}

func TestUpdateIsAllOrNothing(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	refused := errors.New("refused")
	for name, run := range map[string]func(func(*Tx) error) error{"Update": s.Update, "Batch": s.Batch} {
		err := run(func(tx *Tx) error { return errors.Join(tx.PutNode(testNode(1, "a")), refused) })
		if !errors.Is(err, refused) || strings.Contains(err.Error(), "state.db") {
			t.Errorf("%s: %v", name, err)
		}
	}
	err := s.View(func(tx *Tx) error {
		if tx.HasName("a") {
			t.Error("a refused change is there")
		}
		if err := tx.PutNode(testNode(1, "a")); !errors.Is(err, errReadTx) {
			t.Errorf("change in a View: %v", err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestDeleteInviteForgetsRedemptions(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	a, b := Invite{Hash: [32]byte{1}}, Invite{Hash: [32]byte{2}}
	update(t, s, func(tx *Tx) error {
		return errors.Join(tx.PutInvite(a), tx.PutInvite(b), tx.SetRedeemed(a.Hash, identity.ID{1}),
			tx.SetRedeemed(a.Hash, identity.ID{2}), tx.SetRedeemed(b.Hash, identity.ID{1}), tx.DeleteInvite(a.Hash))
	})
	err := s.View(func(tx *Tx) error {
		if tx.Redeemed(a.Hash, identity.ID{1}) || tx.Redeemed(a.Hash, identity.ID{2}) ||
			!tx.Redeemed(b.Hash, identity.ID{1}) {
			t.Error("not the redemptions of the deleted invite")
		}
		invites, err := tx.Invites()
		if len(invites) != 1 || invites[0].Hash != b.Hash {
			t.Errorf("invites %v", invites)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecretDoesNotPrint(t *testing.T) {
	t.Parallel()
	network := Network{CAKey: NewSecret([]byte("canary"))}
	type holder struct {
		hidden  Network
		secret  Secret
		pointer *Network
	}
	held := holder{network, network.CAKey, &network}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&out, verb+"\n", []any{network, &network, network.CAKey, held, &held})
	}
	out.WriteString(network.CAKey.String())
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "network", network, "key", network.CAKey)
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "network", network, "key", network.CAKey)
	for _, form := range []string{"canary", "63616e", "99 97 110", "Y2FuYX", "0x63, 0x61"} {
		if strings.Contains(out.String(), form) {
			t.Errorf("the key leaks as %q", form)
		}
	}
	if !strings.Contains(out.String(), redacted) {
		t.Error("nothing was printed")
	}
}

func FuzzParseNetworkID(f *testing.F) {
	f.Add("aebagbafaydqqcikbmga2dqpca")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		if id, err := ParseNetworkID(text); err == nil && id.String() != text {
			t.Fatalf("%q and %q are one id", text, id)
		}
	})
}

package store

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
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

func TestSecondOpenIsRefused(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	_, err := Open(dir)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), s.Path()) {
		t.Errorf("%v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.View(func(*Tx) error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("View of a closed store: %v", err)
	}
	reopen(t, dir)
}

func TestHeld(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	if held, err := Held(dir); err != nil || !held {
		t.Errorf("open: %v, %v", held, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if held, err := Held(dir); err != nil || held {
		t.Errorf("closed: %v, %v", held, err)
	}
	none := filepath.Join(dir, "none")
	if held, err := Held(none); err != nil || held {
		t.Errorf("no state: %v, %v", held, err)
	}
	if _, err := os.Stat(none); !errors.Is(err, os.ErrNotExist) {
		t.Error("asking made the directory")
	}
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte("x"), fileMode); err != nil {
		t.Fatal(err)
	}
	if held, err := Held(dir); held || !errors.Is(err, ErrDamaged) {
		t.Errorf("damaged: %v, %v", held, err)
	}
}

// Many at once on a new directory: one gets it, the others are told, and all mean the same file.
func TestConcurrentFirstOpen(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	const openers = 8
	results := make(chan error, openers)
	stores := make(chan *Store, openers)
	for range openers {
		go func() {
			s, err := Open(dir)
			if err == nil {
				stores <- s
			}
			results <- err
		}()
	}
	for range openers {
		if err := <-results; err != nil && !errors.Is(err, ErrInUse) {
			t.Error(err)
		}
	}
	if len(stores) != 1 {
		t.Fatalf("%d of %d have opened it", len(stores), openers)
	}
	if err := (<-stores).Close(); err != nil {
		t.Fatal(err)
	}
	reopen(t, dir)
	if names := fileNames(t, dir); !slices.Equal(names, []string{fileName}) {
		t.Errorf("left in the directory: %v", names)
	}
}

func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, entry := range entries {
		names = append(names, entry.Name())
	}
	return names
}

func TestMigration(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	update(t, s, func(tx *Tx) error { return tx.PutNode(testNode(1, "a")) })
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("broken step")
	rename := func(tx *bbolt.Tx) error { return (&Tx{tx}).PutNode(testNode(1, "migrated")) }
	_, err := open(dir, append(schema(), rename, func(*bbolt.Tx) error { return broken }))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "from schema 2 to 3") {
		t.Errorf("failing migration: %v", err)
	}
	// It has left version 1 as it was, or this would be refused.
	if err := reopen(t, dir).Close(); err != nil {
		t.Fatal(err)
	}
	s, err = open(dir, append(schema(), rename))
	if err != nil {
		t.Fatal(err)
	}
	err = s.View(func(tx *Tx) error {
		if !tx.HasName("migrated") || tx.HasName("a") {
			t.Error("the migration has not run")
		}
		return nil
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(dir)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "schema 2, this program knows up to 1") {
		t.Errorf("newer file: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	t.Parallel()
	whole := func(t *testing.T, dir string) []byte {
		s := reopen(t, dir)
		for i := range byte(200) {
			update(t, s, func(tx *Tx) error {
				return tx.PutNode(testNode(i+1, fmt.Sprint("n", i),
					fmt.Sprint("10.0.0.", i)))
			})
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(s.Path())
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	page := os.Getpagesize()
	for name, damage := range map[string]func([]byte) []byte{
		"empty":            func([]byte) []byte { return nil },
		"not a state file": func([]byte) []byte { return []byte("hello") },
		"zeros":            func(data []byte) []byte { return make([]byte, len(data)) },
		"both heads":       func(data []byte) []byte { data[40] ^= 1; data[page+40] ^= 1; return data },
		"half":             func(data []byte) []byte { return data[:len(data)/2] },
		"heads only":       func(data []byte) []byte { return data[:2*page] },
		"content zeroed":   func(data []byte) []byte { clear(data[2*page:]); return data },
		"content ones": func(data []byte) []byte {
			for i := range data[2*page:] {
				data[2*page+i] = 0xff
			}
			return data
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			data := damage(whole(t, dir))
			path := filepath.Join(dir, fileName)
			if err := os.WriteFile(path, data, fileMode); err != nil {
				t.Fatal(err)
			}
			s, err := Open(dir)
			if err == nil {
				t.Fatal("it was opened", s.Close())
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), path) {
				t.Errorf("%v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, data) {
				t.Errorf("the damaged file was changed: %v", err)
			}
		})
	}
}

// A file cut anywhere inside what it holds is refused; what bbolt keeps behind as reserve may be missing.
func TestTruncatedFiles(t *testing.T) {
	t.Parallel()
	s, dir := openNew(t)
	update(t, s, func(tx *Tx) error {
		var failed error
		for i := range byte(100) {
			failed = errors.Join(failed, tx.PutNode(testNode(i+1, fmt.Sprint("n", i), fmt.Sprint("10.0.0.", i))))
		}
		return failed
	})
	for i := range byte(8) { // moves the list of free pages to the front, where it survives the cut
		update(t, s, func(tx *Tx) error { return tx.PutNode(testNode(200+i, fmt.Sprint("late", i))) })
	}
	held := int64(0)
	if err := s.View(func(tx *Tx) error { held = tx.bolt.Size(); return nil }); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	page := int64(os.Getpagesize())
	for size := int64(0); size <= held; size += page {
		cut := t.TempDir()
		if err := os.WriteFile(filepath.Join(cut, fileName), whole[:size], fileMode); err != nil {
			t.Fatal(err)
		}
		s, err := Open(cut)
		if err == nil {
			err = s.Close()
		}
		if size < held && !errors.Is(err, ErrDamaged) || size == held && err != nil {
			t.Errorf("%d of %d bytes: %v", size, held, err)
		}
	}
}

func TestForeignDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	db, err := bbolt.Open(filepath.Join(dir, fileName), fileMode, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrDamaged) {
		t.Errorf("%v", err)
	}
}

func TestLeftoversAreRemoved(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for _, name := range []string{"state.db.new-123", "node.key.new-9", "other.new-1"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), fileMode); err != nil {
			t.Fatal(err)
		}
	}
	reopen(t, dir)
	if names := fileNames(t, dir); !slices.Equal(names, []string{"other.new-1", fileName}) {
		t.Errorf("left in the directory: %v", names)
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

func TestVersionIsWritten(t *testing.T) {
	t.Parallel()
	s, _ := openNew(t)
	err := s.View(func(tx *Tx) error {
		if got := tx.bucket(bucketMeta).Get([]byte(keySchema)); !bytes.Equal(got,
			binary.BigEndian.AppendUint32(nil, 1)) {
			t.Errorf("schema version %x", got)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
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

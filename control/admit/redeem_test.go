package admit

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/aethertunnel/aethertunnel/control/store"
	"github.com/aethertunnel/aethertunnel/crypto/identity"
	"github.com/aethertunnel/aethertunnel/crypto/token"
)

func TestRedeemErrors(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	key := newKey(t)
	good := w.invite(InviteOptions{Uses: 1})
	redeem := func(r JoinRequest, proof Proof) error {
		_, err := w.Redeem(r, proof)
		return err
	}
	other := foreign.invite(InviteOptions{Uses: 1})
	wantError(t, "foreign invite", redeem(request(t, key, "a", other), other), ErrInviteUnknown)
	none := Proof{Binding: good.Binding}
	wantError(t, "no secret", redeem(request(t, key, "a", none), none), ErrInviteUnknown)
	stock := w.invite(InviteOptions{Uses: 1, Stock: true})
	wantError(t, "stock invite", redeem(request(t, key, "a", stock), stock), ErrInviteUnknown)

	signed := request(t, key, "a", good)
	renamed, rekeyed, unsigned := signed, signed, signed
	renamed.Name = "b"
	rekeyed.Public = newKey(t).Public()
	unsigned.Signature = nil
	wantError(t, "changed request", redeem(renamed, good), ErrRequest)
	wantError(t, "other keys", redeem(rekeyed, good), ErrRequest)
	wantError(t, "no signature", redeem(unsigned, good), ErrRequest)
	wantError(t, "no keys", redeem(JoinRequest{Name: "a", Signature: signed.Signature}, good), ErrRequest)
	session := Proof{Secret: good.Secret, Binding: bytes.Repeat([]byte{1}, MinBinding)}
	wantError(t, "request from another session", redeem(signed, session), ErrRequest)
	wantError(t, "short binding", redeem(signed, Proof{Secret: good.Secret, Binding: good.Binding[1:]}),
		ErrRequest)
	second := w.invite(InviteOptions{Uses: 1})
	wantError(t, "request for another invite", redeem(signed, second), ErrRequest)
	own := w.Network().Prefixes[0].Addr().String() + "/24"
	wantError(t, "route into the network", redeem(request(t, key, "a", good, own), good), ErrPrefixConflict)
	wantError(t, "the gateway itself", redeem(request(t, w.gateway, "a", good), good), ErrGatewayNode)

	if nodes, err := w.Nodes(); err != nil || len(nodes) != 1 {
		t.Errorf("refused requests have left %d nodes, %v", len(nodes), err)
	}
	if err := redeem(signed, good); err != nil {
		t.Fatalf("none of that used the invite up, but: %v", err)
	}
	wantError(t, "used invite", redeem(request(t, newKey(t), "b", good), good), ErrInviteUsed)
	w.clock.advance(time.Hour)
	wantError(t, "expired invite", redeem(request(t, newKey(t), "b", second), second), ErrInviteExpired)
	wantError(t, "expired invite, same node", redeem(signed, good), ErrInviteExpired)
	w.clock.advance(keepExpired)
	w.invite(InviteOptions{Uses: 1})
	wantError(t, "forgotten invite", redeem(request(t, newKey(t), "b", second), second), ErrInviteUnknown)
}

func TestRedeemAgain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	proof := w.invite(InviteOptions{Uses: 1})
	r := request(t, key, "laptop", proof)
	first, err := w.Redeem(r, proof)
	if err != nil {
		t.Fatal(err)
	}
	w.restart()
	w.clock.advance(time.Minute)
	again := Proof{Secret: proof.Secret, Binding: bytes.Repeat([]byte{7},
		MinBinding)} // the answer was lost, and the session
	second, err := w.Redeem(request(t, key, "laptop", again), again)
	if err != nil || fmt.Sprint(first) != fmt.Sprint(second) {
		t.Errorf("the second answer differs: %v", err)
	}
	third := w.join(key, "new-name") // by another invite
	if third.Name != "laptop" || !slices.Equal(third.Addresses, first.Addresses) {
		t.Errorf("%s with %v", third.Name, third.Addresses)
	}
	invites, err := w.Invites()
	if err != nil || len(invites) != 2 || invites[0].UsesLeft != 0 || invites[1].UsesLeft != 0 {
		t.Errorf("invites %+v, %v", invites, err)
	}
	if nodes, err := w.Nodes(); err != nil || len(nodes) != 2 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

func TestConcurrentRedemption(t *testing.T) {
	t.Parallel()
	const uses, nodes, repeats = 3, 24, 3
	w := newWorld(t)
	proof := w.invite(InviteOptions{Uses: uses})
	var wg sync.WaitGroup
	results := make([]Admission, nodes*repeats)
	failures := make([]error, nodes*repeats)
	for n := range nodes {
		r := request(t, newKey(t), "crowd", proof)
		for i := range repeats { // each node tries several times at once
			at := n*repeats + i
			wg.Go(func() { results[at], failures[at] = w.Redeem(r, proof) })
		}
	}
	wg.Wait()
	admitted := map[string]netip.Addr{}
	for at, err := range failures {
		if err != nil {
			wantError(t, "loser", err, ErrInviteUsed)
			continue
		}
		address := results[at].Addresses[0]
		if known, ok := admitted[results[at].Name]; ok && known != address {
			t.Errorf("%s has %s and %s", results[at].Name, known, address)
		}
		admitted[results[at].Name] = address
	}
	if len(admitted) != uses {
		t.Errorf("%d nodes by an invite for %d: %v", len(admitted), uses, admitted)
	}
	for n := range nodes { // all tries of one node have one outcome
		for i := range repeats {
			if (failures[n*repeats] == nil) != (failures[n*repeats+i] == nil) {
				t.Errorf("node %d: %v and %v", n, failures[n*repeats], failures[n*repeats+i])
			}
		}
	}
	w.restart()
	list, err := w.Nodes()
	if err != nil || len(list) != 1+uses {
		t.Errorf("%d nodes on record, %v", len(list), err)
	}
}

func TestManyJoinAtOnce(t *testing.T) {
	t.Parallel()
	const crowd = 200
	w := newWorld(t)
	var wg sync.WaitGroup
	proof := w.invite(InviteOptions{Uses: crowd})
	failures := make([]error, crowd)
	for n := range crowd {
		key := newKey(t)
		r := request(t, key, "node", proof)
		wg.Go(func() { _, failures[n] = w.Redeem(r, proof) })
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	nodes, err := w.Nodes()
	if err != nil || len(nodes) != crowd+1 {
		t.Fatal(len(nodes), err)
	}
	taken := map[netip.Addr]string{}
	for _, node := range nodes {
		for _, address := range node.Addresses {
			if other, ok := taken[address]; ok {
				t.Errorf("%s and %s both have %s", node.Name, other, address)
			}
			taken[address] = node.Name
		}
	}
	if len(taken) != 2*(crowd+1) {
		t.Errorf("%d addresses", len(taken))
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	proof := w.invite(InviteOptions{Uses: 2})
	admission, err := w.Redeem(request(t, key, "laptop", proof), proof)
	if err != nil {
		t.Fatal(err)
	}
	chain := parseChain(t, admission.Chain)
	if node, err := w.VerifyPeer(chain); err != nil || node.ID != key.ID() {
		t.Fatal(node.Name, err)
	}
	revoked, err := w.Revoke("laptop")
	if err != nil || revoked.ID != key.ID() || !revoked.Revoked.Equal(w.clock.Now()) {
		t.Fatalf("%+v, %v", revoked, err)
	}
	w.clock.advance(time.Minute)
	if again, err := w.Revoke(key.ID().String()); err != nil || !again.Revoked.Equal(revoked.Revoked) {
		t.Errorf("second revocation: %v, %v", again.Revoked, err)
	}
	w.restart()
	_, err = w.VerifyPeer(chain)
	wantError(t, "certificate of a revoked node", err, ErrRevoked)
	_, err = w.Redeem(request(t, key, "laptop", proof), proof)
	wantError(t, "same invite", err, ErrRevoked)
	fresh := w.invite(InviteOptions{Uses: 1})
	_, err = w.Redeem(request(t, key, "laptop", fresh), fresh)
	wantError(t, "fresh invite", err, ErrRevoked)
	_, err = w.Renew(key.ID())
	wantError(t, "renewal", err, ErrRevoked)
	wantError(t, "touch", w.Touch(key.ID()), ErrRevoked)
	_, err = w.OfferRoutes(key.ID(), nil)
	wantError(t, "offer", err, ErrRevoked)
	_, err = w.ApproveRoute("laptop", netip.MustParsePrefix("10.1.0.0/16"))
	wantError(t, "approval", err, ErrRevoked)
	if _, err := w.Redeem(request(t, newKey(t), "other", fresh), fresh); err != nil {
		t.Errorf("the refusal has used the invite up: %v", err)
	}
	_, err = w.Revoke("gw")
	wantError(t, "gateway", err, ErrGatewayNode)
	_, err = w.Revoke("nobody")
	wantError(t, "nobody", err, ErrUnknownNode)
	if _, err := w.Unrevoke("laptop"); err != nil {
		t.Fatal(err)
	}
	if node, err := w.VerifyPeer(chain); err != nil || !slices.Equal(node.Addresses, admission.Addresses) {
		t.Errorf("after Unrevoke: %v, %v", node.Addresses, err)
	}
}

func TestBearer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	route := netip.MustParsePrefix("192.168.9.0/24")
	secret, _, err := w.Invite(InviteOptions{
		Uses: 1, TTL: time.Hour, Stock: true, Name: "Phone",
		Routes: []netip.Prefix{route},
	})
	if err != nil {
		t.Fatal(err)
	}
	text, err := token.Bearer(secret)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	found := make([]store.Node, 16)
	failures := make([]error, 16)
	for i := range found {
		wg.Go(func() { found[i], failures[i] = w.AuthenticateBearer(text) })
	}
	wg.Wait()
	if err := errors.Join(failures...); err != nil {
		t.Fatal(err)
	}
	for _, node := range found {
		if node.ID != found[0].ID || node.Name != "phone" || !node.Stock ||
			!slices.Equal(node.Addresses, found[0].Addresses) {
			t.Errorf("%+v", node)
		}
	}
	if invites, err := w.Invites(); err != nil || invites[0].UsesLeft != 0 {
		t.Errorf("%+v, %v", invites, err)
	}
	if routes, err := w.Routes(); err != nil || len(routes) != 1 || routes[0].Prefix != route ||
		routes[0].Approved.IsZero() {
		t.Errorf("routes %+v, %v", routes, err)
	}
	w.clock.advance(10 * keepExpired) // longer than any invite lives
	w.invite(InviteOptions{Uses: 1})
	w.restart()
	if node, err := w.AuthenticateBearer(text); err != nil || node.ID != found[0].ID {
		t.Errorf("a year later: %v", err)
	}
	_, err = w.Renew(found[0].ID)
	wantError(t, "certificate for a stock client", err, ErrUnknownNode)
	if _, err := w.Revoke("phone"); err != nil {
		t.Fatal(err)
	}
	_, err = w.AuthenticateBearer(text)
	wantError(t, "revoked", err, ErrBearer)
	wantError(t, "revoked", err, ErrRevoked)
}

func TestBearerRefusals(t *testing.T) {
	t.Parallel()
	w, foreign := newWorld(t), newWorld(t)
	bearer := func(secret token.Secret) string {
		text, err := token.Bearer(secret)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	expired := bearer(w.invite(InviteOptions{Uses: 1, Stock: true}).Secret)
	w.clock.advance(time.Hour)
	for name, text := range map[string]string{
		"empty": "", "junk": "hello", "expired": expired,
		"of an invite for nodes": bearer(w.invite(InviteOptions{Uses: 1}).Secret),
		"foreign":                bearer(foreign.invite(InviteOptions{Uses: 1, Stock: true}).Secret),
	} {
		if _, err := w.AuthenticateBearer(text); !errors.Is(err, ErrBearer) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if nodes, err := w.Nodes(); err != nil || len(nodes) != 1 {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
}

func TestInviteOptions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bad := netip.MustParsePrefix("192.168.1.1/24")
	for name, o := range map[string]InviteOptions{
		"no uses":         {TTL: time.Hour},
		"too many uses":   {Uses: MaxUses + 1, TTL: time.Hour},
		"no life":         {Uses: 1},
		"too long a life": {Uses: 1, TTL: MaxTTL + 1},
		"shared bearer":   {Uses: 2, TTL: time.Hour, Stock: true},
		"too many routes": {Uses: 1, TTL: time.Hour, Routes: make([]netip.Prefix, MaxRoutes+1)},
	} {
		_, _, err := w.Invite(o)
		wantError(t, name, err, ErrInviteOptions)
	}
	_, _, err := w.Invite(InviteOptions{Uses: 1, TTL: time.Hour, Routes: []netip.Prefix{bad}})
	wantError(t, "bad route", err, ErrPrefix)
}

func TestRoutes(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	lan, office := netip.MustParsePrefix("192.168.1.0/24"), netip.MustParsePrefix("fd77::/64")
	spare := netip.MustParsePrefix("10.0.0.0/8")
	key := newKey(t)
	proof := w.invite(InviteOptions{Uses: 1, Routes: []netip.Prefix{lan}})
	if _, err := w.Redeem(request(t, key, "router", proof, lan.String(), office.String()), proof); err != nil {
		t.Fatal(err)
	}
	expect := func(want string) {
		t.Helper()
		routes, err := w.Routes()
		got := ""
		for _, route := range routes {
			got += fmt.Sprintf("%s offered=%t approved=%t inforce=%t\n",
				route.Prefix, !route.Offered.IsZero(), !route.Approved.IsZero(), route.InForce())
		}
		if err != nil || got != want {
			t.Errorf("%v\n%swant\n%s", err, got, want)
		}
	}
	expect(
		"192.168.1.0/24 offered=true approved=true inforce=true\n" +
			"fd77::/64 offered=true approved=false inforce=false\n")
	if route, err := w.ApproveRoute("router", office); err != nil || !route.InForce() {
		t.Errorf("%+v, %v", route, err)
	}
	if route, err := w.ApproveRoute("router", spare); err != nil || route.InForce() {
		t.Errorf("%+v, %v", route, err)
	}
	routes, err := w.OfferRoutes(key.ID(), []netip.Prefix{office, netip.MustParsePrefix("0.0.0.0/0")})
	if err != nil || len(routes) != 4 {
		t.Errorf("%+v, %v", routes, err)
	}
	w.restart()
	expect("0.0.0.0/0 offered=true approved=false inforce=false\n" +
		"10.0.0.0/8 offered=false approved=true inforce=false\n" +
		"192.168.1.0/24 offered=false approved=true inforce=false\n" +
		"fd77::/64 offered=true approved=true inforce=true\n")
	if _, err := w.OfferRoutes(key.ID(), nil); err != nil { // what nobody has approved goes
		t.Fatal(err)
	}
	if routes, err := w.Routes(); err != nil || len(routes) != 3 {
		t.Errorf("%+v, %v", routes, err)
	}
	if own, err := w.OfferRoutes(w.Network().Gateway, []netip.Prefix{lan}); err != nil || len(own) != 1 ||
		!own[0].InForce() {
		t.Errorf("the gateway's own: %+v, %v", own, err)
	}
	if _, err := w.Revoke("router"); err != nil {
		t.Fatal(err)
	}
	expect("192.168.1.0/24 offered=true approved=true inforce=true\n")

	_, err = w.OfferRoutes(w.Network().Gateway, make([]netip.Prefix, MaxRoutes+1))
	wantError(t, "many", err, ErrTooManyRoutes)
	_, err = w.OfferRoutes(identity.ID{1}, nil)
	wantError(t, "unknown node", err, ErrUnknownNode)
	network := w.Network().Prefixes
	for prefix, want := range map[netip.Prefix]error{
		{}:                                      ErrPrefix,
		netip.MustParsePrefix("192.168.1.1/24"): ErrPrefix,
		netip.MustParsePrefix("127.0.0.0/8"):    ErrPrefix,
		netip.MustParsePrefix("ff00::/16"):      ErrPrefix,
		network[0]:                              ErrPrefixConflict,
		netip.PrefixFrom(network[1].Addr(), 64): ErrPrefixConflict,
	} {
		_, err := w.ApproveRoute("gw", prefix)
		wantError(t, prefix.String(), err, want)
	}
	if _, err := w.ApproveRoute("gw", netip.MustParsePrefix("100.64.0.0/10")); err != nil {
		t.Errorf("a subnet around the network: %v", err)
	}
}

func TestTouch(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := newKey(t)
	w.join(key, "laptop")
	seen := func() time.Time {
		node, err := w.Node("laptop")
		if err != nil {
			t.Fatal(err)
		}
		return node.LastSeen
	}
	if !seen().IsZero() {
		t.Error("seen before the first session")
	}
	start := w.clock.Now()
	for range 3 {
		if err := w.Touch(key.ID()); err != nil {
			t.Fatal(err)
		}
		w.clock.advance(TouchStep / 3)
	}
	if !seen().Equal(start) {
		t.Errorf("seen at %s", seen())
	}
	if err := w.Touch(key.ID()); err != nil || !seen().Equal(start.Add(TouchStep)) {
		t.Errorf("seen at %s, %v", seen(), err)
	}
	wantError(t, "unknown", w.Touch(identity.ID{1}), ErrUnknownNode)
}

package firewall

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"github.com/aethertunnel/aethertunnel/platform/journal"
)

// kindTable is the kind of the journal record of our table.
const kindTable = "firewall.table"

// tableBody is the body of a kindTable record. There was no such table before.
type tableBody struct {
	Table string `json:"table"`
}

// Manager brings our table and the forwarding switches to their plans. Its methods are safe for concurrent
// use.
type Manager struct {
	cfg Config

	mu    sync.Mutex // guards the rest
	table string     // recorded in the journal
	held  []string   // forwarding keys, in the order in which they were set
}

// New returns a Manager that has made nothing. It does not touch the host.
func New(cfg Config) *Manager { return &Manager{cfg: cfg} }

// Set replaces our rules by those of the plan, in one transaction, unless they are there already. Packets see
// the old rules or the new ones, never none. Errors: [ErrPlan], [*MissingError], of the journal and of
// netlink.
func (m *Manager) Set(plan Plan) error {
	if err := plan.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.table != "" && m.table != plan.Table {
		return fmt.Errorf("%w: table %s of this daemon is already %s", ErrPlan, plan.Table, m.table)
	}
	if err := m.setLocked(plan.Canonical()); err != nil {
		return fmt.Errorf("set firewall table %s: %w", plan.Table, err)
	}
	return nil
}

func (m *Manager) setLocked(plan Plan) error {
	conn, err := nftables.New()
	if err != nil {
		return err
	}
	now, err := readTable(conn, plan.Table)
	if err != nil {
		return err
	}
	if m.table == "" {
		change := journal.Change{Kind: kindTable, Body: tableBody{Table: plan.Table}}
		if _, err := m.cfg.Journal.Record(change); err != nil {
			return err
		}
		m.table = plan.Table
	}
	err = now.replaceUnlessSame(conn, plan)
	if errors.Is(err, unix.ENOENT) {
		// Perhaps one of our old rules was removed since we looked; if not, the kernel lacks something.
		if now, err = readTable(conn, plan.Table); err != nil {
			return err
		}
		err = now.replaceUnlessSame(conn, plan)
	}
	return missingExpression(err)
}

func (t *ourTable) replaceUnlessSame(conn *nftables.Conn, plan Plan) error {
	if same, err := t.has(conn, plan); err != nil || same {
		return err
	}
	if err := t.replace(conn, plan); err != nil {
		return err
	}
	return conn.Flush()
}

// ourTable is what the kernel has under our table's name.
type ourTable struct {
	table   *nftables.Table
	exists  bool
	chains  []string
	ours    []foundRule
	foreign []foundRule
	others  []string // chains that are not of our making
	sets    []string // ours
	extras  int      // sets and other objects that are not
}

func readTable(conn *nftables.Conn, name string) (*ourTable, error) {
	t := &ourTable{table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
	tables, err := conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, missingTables(fmt.Errorf("list tables: %w", err))
	}
	at := slices.IndexFunc(tables, func(o *nftables.Table) bool { return o.Name == name })
	if at < 0 {
		return t, nil
	}
	t.exists = true
	chains, err := conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	known := map[string]bool{}
	for _, s := range chainSpecs() {
		known[s.name] = true
	}
	for _, c := range chains {
		if c.Table.Name != name {
			continue
		}
		t.chains = append(t.chains, c.Name)
		if !known[c.Name] {
			t.others = append(t.others, c.Name)
		}
	}
	// The library reads this big-endian number in the machine's order.
	objects := binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, tables[at].Use))
	sets, err := conn.GetSets(t.table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	for _, s := range sets {
		if slices.Contains(setNames(), s.Name) {
			t.sets = append(t.sets, s.Name)
		}
	}
	t.extras = max(0, int(objects)-len(t.chains)-len(t.sets))
	rules, err := dumpRules(nftables.TableFamilyINet, name)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	for _, r := range rules {
		if strings.HasPrefix(r.comment, commentPrefix) && known[r.chain] {
			t.ours = append(t.ours, r)
		} else {
			t.foreign = append(t.foreign, r)
		}
	}
	return t, nil
}

// has reports whether the plan is there: chains, sets with their elements, and all rules in order.
func (t *ourTable) has(conn *nftables.Conn, plan Plan) (bool, error) {
	if !t.exists || !t.hasRules(plan) {
		return false, nil
	}
	for _, s := range plan.sets() {
		if !slices.Contains(t.sets, s.name) {
			return false, nil
		}
		if same, err := s.hasElements(conn, t.table); err != nil || !same {
			return false, err
		}
	}
	return true, nil
}

func (t *ourTable) hasRules(plan Plan) bool {
	for _, s := range chainSpecs() {
		if !slices.Contains(t.chains, s.name) {
			return false
		}
	}
	want, got := map[string][]string{}, map[string][]string{}
	fingerprint := plan.fingerprint()
	for i, r := range plan.rules() {
		want[r.chain] = append(want[r.chain], comment(fingerprint, i))
	}
	for _, r := range t.ours {
		got[r.chain] = append(got[r.chain], r.comment)
	}
	return maps.EqualFunc(want, got, slices.Equal)
}

// replace puts into one transaction: make the table, chains and sets if they are not there, remove our old
// rules, fill the sets anew, add the new rules. Rules of others in our table keep their place.
func (t *ourTable) replace(conn *nftables.Conn, plan Plan) error {
	conn.AddTable(t.table)
	chains := map[string]*nftables.Chain{}
	for _, s := range chainSpecs() {
		chains[s.name] = conn.AddChain(s.chain(t.table))
	}
	t.deleteOurs(conn)
	for _, s := range plan.sets() {
		set := s.set(t.table)
		if err := conn.AddSet(set, nil); err != nil {
			return fmt.Errorf("add set %s: %w", s.name, err)
		}
		conn.FlushSet(set)
		if len(s.elements) == 0 {
			continue
		}
		if err := conn.SetAddElements(set, s.elements); err != nil {
			return fmt.Errorf("fill set %s: %w", s.name, err)
		}
	}
	fingerprint := plan.fingerprint()
	for i, r := range plan.rules() {
		conn.AddRule(&nftables.Rule{
			Table: t.table, Chain: chains[r.chain], Exprs: r.exprs, UserData: userData(comment(fingerprint, i)),
		})
	}
	return nil
}

func (t *ourTable) deleteOurs(conn *nftables.Conn) {
	for _, r := range t.ours {
		// Fails only for handle 0, which the kernel never gives.
		_ = conn.DelRule(&nftables.Rule{Table: t.table, Chain: &nftables.Chain{Name: r.chain}, Handle: r.handle})
	}
}

// missingTables turns the kernel's ways of saying that it has no nf_tables, when asked for a list, into a
// MissingError.
func missingTables(err error) error {
	if !isOne(err, unix.EPROTONOSUPPORT, unix.EINVAL, unix.EAFNOSUPPORT, unix.EOPNOTSUPP) {
		return err
	}
	return &MissingError{
		Feature: "nf_tables", Err: err,
		Remedy: "load it with 'modprobe nf_tables' or use a kernel with CONFIG_NF_TABLES and CONFIG_NF_TABLES_INET",
	}
}

// missingExpression does the same for parts of nf_tables that our rules need.
func missingExpression(err error) error {
	if !isOne(err, unix.ENOENT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT) {
		return err
	}
	return &MissingError{
		Feature: "part of nf_tables that the rules need", Err: err,
		Remedy: "load them with 'modprobe -a nft_fib_inet nft_masq nft_chain_nat nf_nat' or use a kernel of 5.2 or " +
			"later with CONFIG_NFT_FIB_INET, CONFIG_NFT_MASQ and CONFIG_NFT_NAT",
	}
}

func isOne(err error, of ...error) bool {
	return slices.ContainsFunc(of, func(o error) bool { return errors.Is(err, o) })
}

// Undoers returns the undoers of this package's records.
func Undoers() journal.Registry {
	return journal.Registry{kindTable: undoTable}
}

func undoTable(record journal.Record) ([]journal.Left, error) {
	var body tableBody
	if err := json.Unmarshal(record.Body, &body); err != nil {
		return nil, fmt.Errorf("undo a firewall table: %w", err)
	}
	if err := validTable(body.Table); err != nil {
		return nil, fmt.Errorf("undo a firewall table: %w", err)
	}
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("undo firewall table %s: %w", body.Table, err)
	}
	now, err := readTable(conn, body.Table)
	if noTables := (*MissingError)(nil); errors.As(err, &noTables) {
		return nil, nil // The record came before the attempt that found this out.
	}
	if err != nil {
		return nil, fmt.Errorf("undo firewall table %s: %w", body.Table, err)
	}
	if !now.exists {
		return nil, nil
	}
	left, err := now.takeBack(conn)
	if err != nil {
		return left, fmt.Errorf("undo firewall table %s: %w", body.Table, err)
	}
	return left, nil
}

// takeBack removes the table, or only our rules and the chains that nothing needs when somebody has put
// something of their own in.
func (t *ourTable) takeBack(conn *nftables.Conn) ([]journal.Left, error) {
	if len(t.foreign) == 0 && len(t.others) == 0 && t.extras == 0 {
		conn.DelTable(t.table)
		return nil, unless(conn.Flush(), unix.ENOENT)
	}
	t.deleteOurs(conn)
	if err := unless(conn.Flush(), unix.ENOENT); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, r := range t.foreign {
		used[r.chain] = true
	}
	for _, name := range t.chains {
		// Removing a chain would remove the rules of others in it as well.
		if used[name] || slices.Contains(t.others, name) {
			continue
		}
		conn.DelChain(&nftables.Chain{Name: name, Table: t.table})
		if err := unless(conn.Flush(), unix.ENOENT, unix.EBUSY); err != nil {
			return nil, err
		}
	}
	for _, name := range t.sets {
		conn.DelSet(&nftables.Set{Name: name, Table: t.table})
		if err := unless(conn.Flush(), unix.ENOENT, unix.EBUSY); err != nil {
			return nil, err
		}
	}
	return []journal.Left{{
		Thing: "nft table inet " + t.table.Name, Set: "our own chains, sets and rules",
		Found: fmt.Sprintf("with %d rules, %d chains and %d sets or other objects of somebody else",
			len(t.foreign), len(t.others), t.extras),
	}}, nil
}

// unless drops an error that is one of those expected.
func unless(err error, expected ...error) error {
	if isOne(err, expected...) {
		return nil
	}
	return err
}

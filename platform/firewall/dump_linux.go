package firewall

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	dumpTries      = 8
	attributeTypes = 0x3fff // masks the flags off a netlink attribute's type
)

// foundRule is a rule as the kernel lists it. Expressions that this package need not understand stay raw.
type foundRule struct {
	family  nftables.TableFamily
	table   string
	chain   string
	handle  uint64
	comment string
	exprs   []foundExpr
}

type foundExpr struct {
	name string
	data []byte
}

// dumpRules lists the rules of one table, or of all when table is "". The library's own listing leaves out the
// expressions that it does not know, which would make a rule look as if it matched more than it does.
func dumpRules(family nftables.TableFamily, table string) ([]foundRule, error) {
	const request = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETRULE
	const answer = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWRULE
	for range dumpTries {
		req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
		req.AddData(&nl.Nfgenmsg{NfgenFamily: uint8(family), Version: nl.NFNETLINK_V0})
		if table != "" {
			req.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
		}
		messages, err := req.Execute(unix.NETLINK_NETFILTER, answer)
		if errors.Is(err, nl.ErrDumpInterrupted) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out := make([]foundRule, 0, len(messages))
		for _, m := range messages {
			r, err := parseRule(m)
			if err != nil {
				return nil, err
			}
			if table == "" || r.table == table {
				out = append(out, r)
			}
		}
		return out, nil
	}
	return nil, nl.ErrDumpInterrupted
}

func parseRule(message []byte) (foundRule, error) {
	if len(message) < nl.SizeofNfgenmsg {
		return foundRule{}, errors.New("short nf_tables message")
	}
	r := foundRule{family: nftables.TableFamily(message[0])}
	attrs, err := nl.ParseRouteAttr(message[nl.SizeofNfgenmsg:])
	if err != nil {
		return foundRule{}, fmt.Errorf("parse an nf_tables rule: %w", err)
	}
	for _, a := range attrs {
		switch a.Attr.Type & attributeTypes {
		case unix.NFTA_RULE_TABLE:
			r.table = unix.ByteSliceToString(a.Value)
		case unix.NFTA_RULE_CHAIN:
			r.chain = unix.ByteSliceToString(a.Value)
		case unix.NFTA_RULE_HANDLE:
			if len(a.Value) == 8 {
				r.handle = binary.BigEndian.Uint64(a.Value)
			}
		case unix.NFTA_RULE_USERDATA:
			r.comment = commentOf(a.Value)
		case unix.NFTA_RULE_EXPRESSIONS:
			if r.exprs, err = parseExprs(a.Value); err != nil {
				return foundRule{}, fmt.Errorf("parse an nf_tables rule: %w", err)
			}
		}
	}
	return r, nil
}

func parseExprs(data []byte) ([]foundExpr, error) {
	list, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil, err
	}
	out := make([]foundExpr, 0, len(list))
	for _, element := range list {
		attrs, err := nl.ParseRouteAttr(element.Value)
		if err != nil {
			return nil, err
		}
		var e foundExpr
		for _, a := range attrs {
			switch a.Attr.Type & attributeTypes {
			case unix.NFTA_EXPR_NAME:
				e.name = unix.ByteSliceToString(a.Value)
			case unix.NFTA_EXPR_DATA:
				e.data = a.Value
			}
		}
		out = append(out, e)
	}
	return out, nil
}

// decode returns the expression, or nil when it is of a kind that this package has no use for.
func (e foundExpr) decode(family nftables.TableFamily) expr.Any {
	var into expr.Any
	switch e.name {
	case "meta":
		into = &expr.Meta{}
	case "cmp":
		into = &expr.Cmp{}
	case "ct":
		into = &expr.Ct{}
	case "bitwise":
		into = &expr.Bitwise{}
	case "payload":
		into = &expr.Payload{}
	case "immediate":
		into = &expr.Immediate{}
	case "counter":
		return &expr.Counter{}
	case "log":
		return &expr.Log{}
	case "reject":
		return &expr.Reject{}
	case "notrack":
		return &expr.Notrack{}
	case "target":
		into = &expr.Target{}
	default:
		return nil
	}
	if err := expr.Unmarshal(byte(family), e.data, into); err != nil {
		return nil
	}
	if i, ok := into.(*expr.Immediate); ok && i.Register == unix.NFT_REG_VERDICT {
		verdict := &expr.Verdict{}
		if err := expr.Unmarshal(byte(family), e.data, verdict); err != nil {
			return nil
		}
		return verdict
	}
	return into
}

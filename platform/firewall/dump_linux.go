package firewall

import (
	"encoding/binary"
	"errors"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

const (
	dumpTries      = 8
	attributeTypes = 0x3fff // masks the flags off a netlink attribute's type
)

// errMessage: a netlink message does not hold what its lengths say.
var errMessage = errors.New("malformed nf_tables message")

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

// dumpRules lists the rules of one table, or of all when table is "". The library's own listing leaves out
// the expressions that it does not know, which would make a rule look as if it matched more than it does.
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
		return foundRule{}, errMessage
	}
	r := foundRule{family: nftables.TableFamily(message[0])}
	err := eachAttribute(message[nl.SizeofNfgenmsg:], func(kind uint16, value []byte) error {
		switch kind {
		case unix.NFTA_RULE_TABLE:
			r.table = unix.ByteSliceToString(value)
		case unix.NFTA_RULE_CHAIN:
			r.chain = unix.ByteSliceToString(value)
		case unix.NFTA_RULE_HANDLE:
			if len(value) != 8 {
				return errMessage
			}
			r.handle = binary.BigEndian.Uint64(value)
		case unix.NFTA_RULE_USERDATA:
			r.comment = commentOf(value)
		case unix.NFTA_RULE_EXPRESSIONS:
			return eachAttribute(value, func(_ uint16, element []byte) error {
				e, err := parseExpr(element)
				r.exprs = append(r.exprs, e)
				return err
			})
		}
		return nil
	})
	return r, err
}

func parseExpr(element []byte) (foundExpr, error) {
	var e foundExpr
	err := eachAttribute(element, func(kind uint16, value []byte) error {
		switch kind {
		case unix.NFTA_EXPR_NAME:
			e.name = unix.ByteSliceToString(value)
		case unix.NFTA_EXPR_DATA:
			e.data = value
		}
		return nil
	})
	return e, err
}

// eachAttribute calls do with type and value of each netlink attribute in data, until one fails or is
// malformed.
func eachAttribute(data []byte, do func(kind uint16, value []byte) error) error {
	for len(data) >= unix.SizeofRtAttr {
		length := int(binary.NativeEndian.Uint16(data))
		if length < unix.SizeofRtAttr || length > len(data) {
			return errMessage
		}
		kind := binary.NativeEndian.Uint16(data[2:]) & attributeTypes
		if err := do(kind, data[unix.SizeofRtAttr:length]); err != nil {
			return err
		}
		data = data[min((length+3)&^3, len(data)):]
	}
	return nil
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

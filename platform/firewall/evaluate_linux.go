package firewall

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

const (
	maxDepth = 32
	maxSteps = 200_000

	stateNew = 1 << 3 // NF_CT_STATE_BIT(IP_CT_NEW), as a rule's "ct state" sees it
)

// probe is a new connection's first packet: forwarded in from our interface, or out to it. The other
// interface is any but ours. Nothing else about it is known.
type probe struct {
	protocol byte
	in, out  string // the name of our interface, or "" for any other
	tun      string
}

// match is whether a rule matches a probe.
type match int

const (
	matchNo match = iota
	matchMaybe
	matchYes
)

// verdict is what becomes of a probe in a chain.
type verdict int

const (
	verdictNone verdict = iota // the chain ends, or the rule decides nothing
	verdictReturn
	verdictAccept
	verdictDrop
	verdictJump
	verdictGoto
)

// walk follows one probe through the chains of one base chain.
type walk struct {
	set       *ruleset
	probe     probe
	stepsLeft int
	reason    string
}

// base returns why the probe is dropped, and whether it is.
func (w *walk) base(id chainID, policy *nftables.ChainPolicy) (string, bool) {
	switch w.chain(id, 0) {
	case verdictDrop:
		return w.reason, true
	case verdictNone, verdictReturn:
		if policy != nil && *policy == nftables.ChainPolicyDrop {
			return "policy drop", true
		}
	case verdictAccept, verdictJump, verdictGoto:
	}
	return "", false
}

func (w *walk) chain(id chainID, depth int) verdict {
	if depth > maxDepth {
		return verdictAccept // the kernel allows 16, so this cannot be; nothing is claimed
	}
	for _, r := range w.set.rules[id] {
		if w.stepsLeft--; w.stepsLeft < 0 {
			return verdictAccept
		}
		matched, what, target := w.rule(&r)
		if matched != matchYes {
			continue
		}
		switch what {
		case verdictNone:
		case verdictReturn:
			return verdictNone
		case verdictAccept:
			return verdictAccept
		case verdictDrop:
			w.reason = fmt.Sprintf("last rule of %s", id.chain)
			return verdictDrop
		case verdictJump, verdictGoto:
			next := chainID{family: id.family, table: id.table, chain: target}
			v := w.chain(next, depth+1)
			if v == verdictAccept || v == verdictDrop || what == verdictGoto {
				return v
			}
		}
	}
	return verdictNone
}

// value is the content of a register: known bytes, or the name of some interface that is not ours, or
// unknown.
type value struct {
	known      []byte
	otherIface bool
}

// rule evaluates one rule's expressions in order.
func (w *walk) rule(r *foundRule) (matched match, what verdict, target string) {
	registers := map[uint32]value{}
	matched = matchYes
	for _, e := range r.exprs {
		switch x := e.decode(r.family).(type) {
		case *expr.Meta:
			if !x.SourceRegister {
				registers[x.Register] = w.meta(x.Key)
			}
		case *expr.Ct:
			if !x.SourceRegister {
				registers[x.Register] = connection(x.Key)
			}
		case *expr.Payload:
			registers[x.DestRegister] = value{}
		case *expr.Immediate:
			registers[x.Register] = value{known: x.Data}
		case *expr.Bitwise:
			registers[x.DestRegister] = registers[x.SourceRegister].masked(x)
		case *expr.Cmp:
			matched = min(matched, registers[x.Register].compare(x, w.probe.tun))
		case *expr.Verdict:
			what, target = verdictOf(x)
		case *expr.Reject:
			what = verdictDrop
		case *expr.Target:
			if x.Name == "REJECT" || x.Name == "DROP" {
				what = verdictDrop
			}
		case *expr.Counter, *expr.Log, *expr.Notrack:
		default:
			matched = min(matched, matchMaybe)
		}
		if matched == matchNo {
			return matchNo, verdictNone, ""
		}
	}
	return matched, what, target
}

func (w *walk) meta(key expr.MetaKey) value {
	iface := func(name string) value {
		if name == "" {
			return value{otherIface: true}
		}
		return value{known: interfaceName(name)}
	}
	switch key {
	case expr.MetaKeyIIFNAME:
		return iface(w.probe.in)
	case expr.MetaKeyOIFNAME:
		return iface(w.probe.out)
	case expr.MetaKeyNFPROTO:
		return value{known: []byte{w.probe.protocol}}
	default:
		return value{}
	}
}

// connection is the state of a new connection that no NAT rule has touched.
func connection(key expr.CtKey) value {
	switch key {
	case expr.CtKeySTATE:
		return value{known: binary.NativeEndian.AppendUint32(nil, stateNew)}
	case expr.CtKeySTATUS:
		return value{known: binary.NativeEndian.AppendUint32(nil, 0)}
	default:
		return value{}
	}
}

func (v value) masked(x *expr.Bitwise) value {
	if v.known == nil || len(x.Mask) > len(v.known) || len(x.Xor) != len(x.Mask) {
		return value{}
	}
	out := make([]byte, len(x.Mask))
	for i := range out {
		out[i] = v.known[i]&x.Mask[i] ^ x.Xor[i]
	}
	return value{known: out}
}

// compare evaluates a comparison. A rule compares an interface's name in full, padded with zeros, or only its
// beginning ("docker*").
func (v value) compare(x *expr.Cmp, tun string) match {
	if v.otherIface {
		return otherInterface(x, tun)
	}
	if v.known == nil || len(x.Data) > len(v.known) {
		return matchMaybe
	}
	order := bytes.Compare(v.known[:len(x.Data)], x.Data)
	holds := false
	switch x.Op {
	case expr.CmpOpEq:
		holds = order == 0
	case expr.CmpOpNeq:
		holds = order != 0
	case expr.CmpOpLt:
		holds = order < 0
	case expr.CmpOpLte:
		holds = order <= 0
	case expr.CmpOpGt:
		holds = order > 0
	case expr.CmpOpGte:
		holds = order >= 0
	}
	if holds {
		return matchYes
	}
	return matchNo
}

// otherInterface compares the name of an interface of which only is known that it is not ours.
func otherInterface(x *expr.Cmp, tun string) match {
	// Without a zero at its end the data is only the beginning of a name.
	name, _, whole := bytes.Cut(x.Data, []byte{0})
	if !whole || string(name) != tun {
		return matchMaybe
	}
	switch x.Op {
	case expr.CmpOpEq:
		return matchNo
	case expr.CmpOpNeq:
		return matchYes
	case expr.CmpOpLt, expr.CmpOpLte, expr.CmpOpGt, expr.CmpOpGte:
	}
	return matchMaybe
}

func verdictOf(x *expr.Verdict) (verdict, string) {
	switch x.Kind {
	case expr.VerdictReturn:
		return verdictReturn, ""
	case expr.VerdictJump:
		return verdictJump, x.Chain
	case expr.VerdictGoto:
		return verdictGoto, x.Chain
	case expr.VerdictDrop:
		return verdictDrop, ""
	case expr.VerdictAccept, expr.VerdictQueue, expr.VerdictStolen, expr.VerdictRepeat, expr.VerdictStop:
		return verdictAccept, "" // somebody else decides about a queued packet; nothing is claimed
	case expr.VerdictBreak, expr.VerdictContinue:
	}
	return verdictNone, ""
}

// jumpTarget returns the chain that an expression leads to, or "".
func (e foundExpr) jumpTarget(family nftables.TableFamily) string {
	if e.name != "immediate" {
		return ""
	}
	x, ok := e.decode(family).(*expr.Verdict)
	if !ok || (x.Kind != expr.VerdictJump && x.Kind != expr.VerdictGoto) {
		return ""
	}
	return x.Chain
}

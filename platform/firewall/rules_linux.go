package firewall

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Chains of our table.
const (
	chainShield = "shield"
	chainMark   = "mark"
	chainClamp  = "clamp"
	chainSource = "source"
)

const (
	loopback       = "lo"
	register       = unix.NFT_REG_1
	tcpFlagsOffset = 13
	tcpSYN         = 0x02
	tcpRST         = 0x04
	tcpOptionMSS   = 2
	udpPortOffset  = 2
	commentType    = 0 // NFTNL_UDATA_RULE_COMMENT
	commentPrefix  = "aethertunnel "
)

// chainSpec is a base chain of our table.
type chainSpec struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	priority *nftables.ChainPriority
}

func chainSpecs() []chainSpec {
	return []chainSpec{
		{chainShield, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw},
		{chainMark, nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityMangle},
		{chainClamp, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityMangle},
		{chainSource, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource},
	}
}

func (s chainSpec) chain(table *nftables.Table) *nftables.Chain {
	accept := nftables.ChainPolicyAccept
	return &nftables.Chain{
		Name: s.name, Table: table, Type: s.kind, Hooknum: s.hook, Priority: s.priority, Policy: &accept,
	}
}

// rule is one of our rules before it is given to the kernel.
type rule struct {
	chain string
	exprs []expr.Any
}

// rules lists the rules, in order. What a plan lists is in sets, so their number is always the same: a whole
// table fits the kernel's answer buffer.
func (p Plan) rules() []rule {
	var out []rule
	add := func(chain string, parts ...[]expr.Any) {
		var all []expr.Any
		for _, part := range parts {
			all = append(all, part...)
		}
		out = append(out, rule{chain: chain, exprs: all})
	}
	notOurs := interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, p.Device)
	notLocal := interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpNeq, loopback)
	for _, f := range families() {
		add(chainShield, notOurs, notLocal, f.is(), f.destinationIn(setOwn), drop())
		add(chainShield, notOurs, notLocal, f.is(), f.sourceIn(setTunnel), drop())
	}
	add(chainMark, notOurs, udpDestination(), destinationIsLocal(), setMark(p.Mark))
	add(chainClamp, interfaceIs(expr.MetaKeyIIFNAME, expr.CmpOpEq, p.Device), tcpSyn(), clampMSS())
	add(chainClamp, interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpEq, p.Device), tcpSyn(), clampMSS())
	for _, f := range families() {
		add(chainSource, interfaceIs(expr.MetaKeyOIFNAME, expr.CmpOpNeq, p.Device), f.is(), f.sourceIn(setTunnel),
			f.destinationIn(setGranted), []expr.Any{&expr.Counter{}, &expr.Masq{}})
	}
	return out
}

// family is where an address family has its addresses in the header.
type family struct {
	suffix       string // of the names of its sets
	protocol     byte
	keyType      nftables.SetDatatype
	length       uint32
	sourceOffset uint32
}

func families() []family {
	return []family{
		{suffix: "4", protocol: unix.NFPROTO_IPV4, keyType: nftables.TypeIPAddr, length: 4, sourceOffset: 12},
		{suffix: "6", protocol: unix.NFPROTO_IPV6, keyType: nftables.TypeIP6Addr, length: 16, sourceOffset: 8},
	}
}

func (f family) is() []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{f.protocol}},
	}
}

func (f family) sourceIn(set string) []expr.Any { return f.addressIn(f.sourceOffset, set) }

func (f family) destinationIn(set string) []expr.Any {
	return f.addressIn(f.sourceOffset+f.length, set)
}

func (f family) addressIn(offset uint32, set string) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: f.length},
		&expr.Lookup{SourceRegister: register, SetName: set + f.suffix},
	}
}

func interfaceIs(key expr.MetaKey, op expr.CmpOp, name string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: register},
		&expr.Cmp{Op: op, Register: register, Data: interfaceName(name)},
	}
}

// interfaceName is a name as the kernel compares it: 16 bytes, padded with zeros.
func interfaceName(name string) []byte {
	out := make([]byte, unix.IFNAMSIZ)
	copy(out, name)
	return out
}

func protocolIs(protocol byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: register},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{protocol}},
	}
}

func udpDestination() []expr.Any {
	return append(protocolIs(unix.IPPROTO_UDP),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: udpPortOffset, Len: 2},
		&expr.Lookup{SourceRegister: register, SetName: setPorts})
}

func destinationIsLocal() []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: register, ResultADDRTYPE: true, FlagDADDR: true},
		&expr.Cmp{
			Op: expr.CmpOpEq, Register: register, Data: binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL),
		},
	}
}

func setMark(mark uint32) []expr.Any {
	return []expr.Any{
		&expr.Immediate{Register: register, Data: binary.NativeEndian.AppendUint32(nil, mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

// tcpSyn matches segments that open a connection, in both directions: SYN set and RST not.
func tcpSyn() []expr.Any {
	return append(protocolIs(unix.IPPROTO_TCP),
		&expr.Payload{DestRegister: register, Base: expr.PayloadBaseTransportHeader, Offset: tcpFlagsOffset, Len: 1},
		&expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: 1,
			Mask: []byte{tcpSYN | tcpRST}, Xor: []byte{0},
		},
		&expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: []byte{tcpSYN}})
}

// clampMSS lowers the MSS option to what the route's path MTU allows. The kernel never raises it here.
func clampMSS() []expr.Any {
	return []expr.Any{
		&expr.Rt{Register: register, Key: expr.RtTCPMSS},
		&expr.Byteorder{
			SourceRegister: register, DestRegister: register, Op: expr.ByteorderHton, Len: 2, Size: 2,
		},
		&expr.Exthdr{
			SourceRegister: register, Op: expr.ExthdrOpTcpopt, Type: tcpOptionMSS, Offset: 2, Len: 2,
		},
	}
}

func drop() []expr.Any {
	return []expr.Any{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop}}
}

// comment is what marks a rule as ours and says which plan it belongs to and which rule of it it is.
func comment(fingerprint string, index int) string {
	return fmt.Sprintf("%s%s %d", commentPrefix, fingerprint, index)
}

// userData wraps a comment in the type-length-value form that the nft program shows.
func userData(text string) []byte {
	return append([]byte{commentType, byte(len(text) + 1)}, text+"\x00"...)
}

// commentOf returns the comment in a rule's user data, or "".
func commentOf(data []byte) string {
	for len(data) >= 2 {
		kind, length := data[0], int(data[1])
		if len(data) < 2+length {
			return ""
		}
		if kind == commentType {
			return strings.TrimRight(string(data[2:2+length]), "\x00")
		}
		data = data[2+length:]
	}
	return ""
}

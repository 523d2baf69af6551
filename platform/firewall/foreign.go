package firewall

import "fmt"

// Owner is the program that a foreign rule belongs to, as far as its well-known names tell.
type Owner string

// Owners of foreign rules.
const (
	Docker    Owner = "docker"
	UFW       Owner = "ufw"
	Firewalld Owner = "firewalld"
	Unknown   Owner = "unknown"
)

// ForeignDrop is a base chain of somebody else that drops packets forwarded in or out of our interface.
type ForeignDrop struct {
	// Family is "ip", "ip6" or "inet".
	Family string
	// Table and Chain name the base chain.
	Table, Chain string
	// Reason is what drops: "policy drop", or the chain with the rule that drops everything left.
	Reason string
	Owner  Owner
	// Remedy is the exact command that lets our packets through.
	Remedy string
}

// String returns one line for an operator.
func (d ForeignDrop) String() string {
	return fmt.Sprintf("forwarded packets are dropped by %s (%s %s, chain %s, %s); remedy: %s",
		d.Owner, d.Family, d.Table, d.Chain, d.Reason, d.Remedy)
}

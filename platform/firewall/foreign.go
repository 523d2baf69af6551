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

// remedy returns the command for an owner and family.
func remedy(owner Owner, family, table, chain, device string) string {
	switch owner {
	case Docker:
		tool := "iptables"
		if family == "ip6" {
			tool = "ip6tables"
		}
		return fmt.Sprintf("%s -I DOCKER-USER -i %s -j ACCEPT && %s -I DOCKER-USER -o %s -j ACCEPT",
			tool, device, tool, device)
	case UFW:
		return fmt.Sprintf("ufw route allow in on %s && ufw route allow out on %s", device, device)
	case Firewalld:
		return fmt.Sprintf("firewall-cmd --permanent --zone=trusted --add-interface=%s && firewall-cmd --reload",
			device)
	case Unknown:
	}
	return fmt.Sprintf("nft insert rule %s %s %s iifname %q accept && nft insert rule %s %s %s oifname %q accept",
		family, table, chain, device, family, table, chain, device)
}

// A description to begin with: five machines at two testbeds, a link in each way that there is, and a LAN.

export const EXAMPLE = `# two machines at deter, three at ucb, one experiment
set ns [new Simulator]
source tb_compat.tcl

set a [$ns node]
set b [$ns node]
set c [$ns node]
set d [$ns node]
set e [$ns node]

foreach {node testbed} [list $a deter $b deter $c ucb $d ucb $e ucb] {
    tb-set-node-testbed $node $testbed
}

set link0 [$ns duplex-link $a $b 100Mb 0ms DropTail]
set link1 [$ns duplex-link $c $b 100Mb 0ms DropTail]
set lan0 [$ns make-lan "$c $d $e" 100Mb 0ms]

$ns rtproto Static
$ns run
`;

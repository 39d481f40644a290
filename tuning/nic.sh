#!/usr/bin/env bash
# Shows, sets and takes back what a network interface should be for Ringway: one queue per shard, each queue's interrupt
# on its shard's CPU, UDP ports in the hash, GRO, and segmentation by the card. README.md says why.
#
#   nic.sh show  IFACE
#   nic.sh apply IFACE --cpus LIST [--yes]     LIST as for ringway --cpus: 0-3,8; the first queue goes to the first CPU
#   nic.sh undo  IFACE [--yes]
#
# Without --yes it only prints what it would do. `apply` notes what was before; `undo` restores that and forgets it.
set -euo pipefail

state_folder=${RINGWAY_NIC_STATE:-/run/ringway}

fail() {
    echo "nic.sh: $*" >&2
    exit 2
}

usage() {
    sed -n '2,9s/^# \{0,1\}//p' "$0"
}

# The CPUs of a list such as 0-3,8, one per line.
cpus_of() {
    local part first last cpu
    local IFS=,
    for part in $1; do
        [[ $part =~ ^([0-9]{1,4})(-([0-9]{1,4}))?$ ]] || fail "--cpus $1: '$part' is no CPU and no range"
        first=$((10#${BASH_REMATCH[1]})) last=$((10#${BASH_REMATCH[3]:-${BASH_REMATCH[1]}}))
        [ "$first" -le "$last" ] || fail "--cpus $1: '$part' goes backwards"
        for ((cpu = first; cpu <= last; cpu++)); do
            [ -d "/sys/devices/system/cpu/cpu$cpu" ] || fail "--cpus $1: this host has no CPU $cpu"
            if [ "$(cat "/sys/devices/system/cpu/cpu$cpu/online" 2>/dev/null || echo 1)" = 0 ]; then
                fail "--cpus $1: CPU $cpu is offline"
            fi
            echo "$cpu"
        done
    done
}

# The mask of these CPUs, as /sys wants it: 32 bits at a time, the highest first.
mask_of() {
    local words=() cpu word text=''
    for cpu in "$@"; do
        words[cpu / 32]=$((${words[cpu / 32]:-0} | 1 << (cpu % 32)))
    done
    for ((word = $((${*: -1} / 32)); word >= 0; word--)); do
        text+=$(printf '%s%08x' "${text:+,}" "${words[word]:-0}")
    done
    echo "$text"
}

# A mask without what says nothing: commas, and the zeros before the first digit that counts.
mask_value() {
    sed 's/,//g; s/^0*//' <<<"$1"
}

# Column $2 (maximum or current) of the channels named $1 (RX, TX, Combined); 0 where there are none.
channels() {
    ethtool -l "$iface" 2>/dev/null | awk -v kind="$1:" -v which="$2" '
        /^Current/ { current = 1 }
        $1 == kind && current == (which == "current") { found = $2 }
        END { print found ~ /^[0-9]+$/ ? found : 0 }'
}

# on, off or fixed: whether an offload is on, and whether that can change.
offload() {
    ethtool -k "$iface" | awk -v name="$1:" '$1 == name { print ($3 == "[fixed]" ? "fixed" : $2) }'
}

interrupts() {
    local irq
    for irq in "/sys/class/net/$iface/device/msi_irqs/"*; do
        irq=${irq##*/}
        # Those of the driver's queues; the first ones of some cards are for its own affairs.
        grep -Eq "^ *$irq:.*($iface|input|output|TxRx|comp|rx|tx)[-.0-9@]*" /proc/interrupts 2>/dev/null && echo "$irq"
    done
    return 0
}

rx_hash() {
    ethtool -n "$iface" rx-flow-hash "$1" 2>/dev/null | grep -q 'L4 bytes 0 & 1' && echo sdfn || echo other
}

show() {
    local queue irq
    echo "driver            $(ethtool -i "$iface" | awk '/^driver:/ { print $2 }')"
    echo "NUMA node         $(cat "/sys/class/net/$iface/device/numa_node" 2>/dev/null || echo none)"
    echo "queues combined   $(channels Combined current) of $(channels Combined maximum)"
    echo "queues rx         $(channels RX current) of $(channels RX maximum)"
    echo "queues tx         $(channels TX current) of $(channels TX maximum)"
    for queue in "${offloads[@]}"; do
        printf '%-17s %s\n' "${queue#generic-}" "$(offload "$queue" | grep . || echo unknown)"
    done
    for queue in udp4 udp6; do
        echo "ports in hash     $queue: $(rx_hash $queue | sed 's/sdfn/yes/; s/other/no, or not told/')"
    done
    for queue in "/sys/class/net/$iface/queues/"rx-*; do
        echo "rps ${queue##*/}          $(cat "$queue/rps_cpus")"
    done
    for irq in $(interrupts); do
        echo "irq $irq          CPU $(cat "/proc/irq/$irq/smp_affinity_list")"
    done
}

# Does, or says what it would do.
act() {
    if [ "$yes" = yes ]; then
        echo "+ $*"
        "$@"
    else
        echo "would: $*"
    fi
}

write() {
    printf '%s\n' "$2" >"$1"
}

# Notes how to take the next change back: one line that `undo` reads, never a command that it runs as it stands.
note() {
    if [ "$yes" = yes ]; then
        echo "$*" >>"$notes"
    fi
}

set_channels() {
    local kind=$1 wanted=$2 name now maximum # and receive_queues of the caller
    name=$([ "$kind" = combined ] && echo Combined || echo "${kind^^}")
    now=$(channels "$name" current) maximum=$(channels "$name" maximum)
    [ "$maximum" -gt 0 ] || return 0
    if [ "$wanted" -gt "$maximum" ]; then
        echo "$iface has $maximum $kind queues for $wanted CPUs: RPS spreads what they receive"
        wanted=$maximum
    fi
    [ "$kind" = tx ] || receive_queues=$wanted
    if [ "$now" -ne "$wanted" ]; then
        note channels "$kind" "$now"
        act ethtool -L "$iface" "$kind" "$wanted"
    fi
}

apply() {
    local list_read receive_queues cpus=() name queues irqs irq i=0 file mask
    # What is wrong with the list has been told by then.
    list_read=$(cpus_of "$list") || exit 2
    mapfile -t cpus <<<"$list_read"
    [ "$(printf '%s\n' "${cpus[@]}" | sort -u | wc -l)" -eq ${#cpus[@]} ] ||
        fail "--cpus $list: a CPU stands there twice"
    [ ! -e "$notes" ] || fail "$iface has been set already: nic.sh undo $iface --yes first"
    if [ "$yes" = yes ]; then
        mkdir -p "$state_folder"
        : >"$notes"
    fi

    queues=("/sys/class/net/$iface/queues/"rx-*)
    receive_queues=${#queues[@]}
    if [ "$(channels Combined maximum)" -gt 0 ]; then
        set_channels combined ${#cpus[@]}
    else
        set_channels rx ${#cpus[@]}
        set_channels tx ${#cpus[@]}
    fi
    for name in "${offloads[@]}"; do
        if [ "$(offload "$name")" = off ]; then
            note offload "$name" off
            act ethtool -K "$iface" "$name" on
        fi
    done
    for name in udp4 udp6; do
        if ethtool -n "$iface" rx-flow-hash "$name" >/dev/null 2>&1 && [ "$(rx_hash "$name")" = other ]; then
            note hash "$name" sd
            act ethtool -N "$iface" rx-flow-hash "$name" sdfn
        fi
    done
    mapfile -t irqs < <(interrupts)
    for irq in "${irqs[@]}"; do
        note affinity "$irq" "$(cat "/proc/irq/$irq/smp_affinity_list")"
        act write "/proc/irq/$irq/smp_affinity_list" "${cpus[i++ % ${#cpus[@]}]}"
    done
    # A queue for each CPU needs no spreading in software, which costs an interrupt between CPUs for each batch.
    mask=0
    [ "$receive_queues" -ge ${#cpus[@]} ] || [ ${#irqs[@]} -ge ${#cpus[@]} ] ||
        mask=$(mapfile -t sorted < <(printf '%s\n' "${cpus[@]}" | sort -n) && mask_of "${sorted[@]}")
    for file in "/sys/class/net/$iface/queues/"rx-*/rps_cpus; do
        if [ "$(mask_value "$(cat "$file")")" != "$(mask_value "$mask")" ]; then
            note rps "$file" "$(cat "$file")"
            act write "$file" "$mask"
        fi
    done
}

undo() {
    local kind what before
    [ -e "$notes" ] || fail "nothing is noted for $iface: apply has not been run since the host started"
    # The last change first: what belongs to a queue is restored before queues come or go.
    while read -r kind what before; do
        case $kind in
            channels) act ethtool -L "$iface" "$what" "$before" ;;
            offload) act ethtool -K "$iface" "$what" "$before" ;;
            hash) act ethtool -N "$iface" rx-flow-hash "$what" "$before" ;;
            affinity) act write "/proc/irq/$what/smp_affinity_list" "$before" ;;
            rps) [ ! -e "$what" ] || act write "$what" "$before" ;;
            *) fail "$notes: what is '$kind'?" ;;
        esac
    done < <(tac "$notes")
    [ "$yes" = no ] || rm "$notes"
}

offloads=(generic-receive-offload tx-udp-segmentation)
verb=${1-} iface=${2-} yes=no list=''
case $verb in
    show | apply | undo) ;;
    help | -h | --help) usage && exit 0 ;;
    *) usage >&2 && exit 2 ;;
esac
[ -n "$iface" ] || fail "$verb: which interface? ip link lists them"
shift 2
while [ $# -gt 0 ]; do
    case $1 in
        --yes) yes=yes ;;
        --cpus)
            [ $# -ge 2 ] || fail "--cpus needs a list such as 0-3"
            list=$2
            shift
            ;;
        *) fail "unknown argument $1" ;;
    esac
    shift
done
[[ $iface =~ ^[A-Za-z0-9_.:@-]{1,15}$ && -d /sys/class/net/$iface ]] ||
    fail "there is no interface $iface: ip link lists them"
[ "$iface" != lo ] || fail "lo has no queues and no interrupts: there is nothing to set"
command -v ethtool >/dev/null || fail "ethtool is missing: apt-get install ethtool"
[ "$yes" = no ] || [ "$(id -u)" = 0 ] || fail "--yes needs root"
[ "$verb" = apply ] || [ -z "$list" ] || fail "$verb takes no --cpus"
[ "$verb" != apply ] || [ -n "$list" ] || fail "apply needs --cpus: those that Ringway runs on"
notes=$state_folder/nic-$iface
"$verb"

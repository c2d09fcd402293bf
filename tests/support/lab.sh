#!/usr/bin/env bash
# Makes what the tests need and pip cannot install: Debian packages, two folders with a real Asterisk, two with the
# systemd of a Debian release, one with Kamailio (a SIP proxy), one with fail2ban, from which users migrate and with
# which we compare, one with Prometheus, which reads the metrics, one with CrowdSec, and one with SIPVicious, whose
# scanners attack us. The last four are unpacked, not installed. So are the other rivals of
# `make compare`: the newest fail2ban, and CrowdSec's firewall bouncer. `make bench` has one with PostgreSQL, a database
# for CrowdSec.
#
#   lab.sh system [demo]        install the packages that are missing
#   lab.sh trees FOLDER compare make what `make compare` needs: FOLDER/22, FOLDER/fail2ban, FOLDER/fail2ban-newest,
#                               FOLDER/crowdsec and FOLDER/crowdsec-firewall-bouncer
#   lab.sh trees FOLDER bench   make what `make bench` needs besides: FOLDER/postgresql
#   lab.sh trees FOLDER [demo]  make FOLDER/16 (bullseye: chan_sip and PJSIP), FOLDER/22 (forky or later: PJSIP),
#                               FOLDER/kamailio, FOLDER/fail2ban, FOLDER/prometheus, FOLDER/crowdsec, FOLDER/sipvicious and
#                               FOLDER/debian-12 and FOLDER/debian-13 (systemd, which reads the units, and what our package needs)
#
# With `demo` they install and make only what `make demo` needs: FOLDER/22 and the programs that attack and guard it.
# Both end at once if there is nothing to do. Without root, or not on Debian, both do nothing and print one line;
# otherwise a failure is an error. A tree is made as NAME.partial and gets its name when it is complete.

set -euo pipefail

demo_packages=(python3-venv debootstrap ipset iptables nftables iproute2 procps openssl)
# systemd: for systemd-analyze, which reads the unit, and for the journals of tests. chromium: for the live page.
# libatomic1: for Playwright's node, which drives chromium. groff: reads our manual page as `man` does. zsh and fish
# read our completion. ansible-core runs our role. debhelper and dh-python build our package. strace lets
# system calls fail. nmap and sip-tester (SIPp) attack us.
packages=("${demo_packages[@]}" systemd chromium libatomic1 groff zsh fish ansible-core debhelper dh-python strace)
packages+=(nmap sip-tester)
# In the trees of Debian's releases.
released=systemd,python3,nftables

able() {
    [[ $(id -u) == 0 && -e /etc/debian_version ]]
}

install_missing() {
    local -a missing=()
    local package
    for package in "$@"; do
        [[ $(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    echo "system: installing ${missing[*]}"
    apt-get update --quiet=2
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" >/dev/null
}

# debootstrap of Debian 12 does not know the newer release by name: it uses a copy of its own scripts
# that does. Its mounts are in a mount namespace, so that an interrupted run leaves none behind.
bootstrap() {
    local release=$1 tree=$2 scripts=$3 packages=$4
    [[ -e $scripts/scripts/$release ]] || ln -s sid "$scripts/scripts/$release"
    rm -rf --one-file-system "$tree.partial"
    DEBOOTSTRAP_DIR=$scripts unshare --mount \
        debootstrap --variant=minbase --include="$packages" "$release" "$tree.partial" >"$tree.log" 2>&1 || return
    rm -rf "$tree.partial"/var/cache/apt/archives/*.deb "$tree.partial"/var/lib/apt/lists/*
    mv "$tree.partial" "$tree"
}

make_tree() {
    local tree=$1 scripts=$2 packages=$3
    local release
    shift 3
    [[ ! -e $tree ]] || return 0
    for release in "$@"; do
        echo "lab: making $tree from $release"
        bootstrap "$release" "$tree" "$scripts" "$packages" && return
        echo "lab: $release failed:"
        tail -n 5 "$tree.log"
    done
    return 1
}

unpack() {
    local tree=$1
    shift
    [[ ! -e $tree ]] || return 0
    echo "lab: unpacking $* into $tree"
    rm -rf "$tree.partial"
    mkdir "$tree.partial"
    # apt downloads as the user _apt, who must be able to write here.
    chown _apt "$tree.partial"
    (
        cd "$tree.partial"
        apt-get update --quiet=2
        apt-get download --quiet=2 "$@"
        for package in *.deb; do dpkg-deb --extract "$package" .; done
    )
    chown root "$tree.partial"
    mv "$tree.partial" "$tree"
}

# Another release than the host's: apt has its sources, lists and cache in a folder, which is then removed.
unpack_from() {
    local release=$1 tree=$2 apt=$2.apt status=0
    shift
    [[ ! -e $tree ]] || return 0
    rm -rf "$apt"
    mkdir -p "$apt/lists/partial" "$apt/archives/partial"
    chown -R _apt "$apt"
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $release main" \
        >"$apt/sources.list"
    cat >"$apt/apt.conf" <<END
Dir::Etc::SourceList "$apt/sources.list";
Dir::Etc::SourceParts "-";
Dir::State::Lists "$apt/lists";
Dir::Cache "$apt";
END
    APT_CONFIG=$apt/apt.conf unpack "$@" || status=$?
    rm -rf "$apt"
    return "$status"
}

make_tree_named() {
    local folder=$1 name=$2
    case $name in
    16) make_tree "$folder/16" "$scripts" asterisk bullseye ;;
    22) make_tree "$folder/22" "$scripts" asterisk forky sid ;;
    kamailio) make_tree "$folder/kamailio" "$scripts" kamailio bookworm ;;
    debian-12) make_tree "$folder/debian-12" "$scripts" "$released" bookworm ;;
    debian-13) make_tree "$folder/debian-13" "$scripts" "$released" trixie ;;
    fail2ban) unpack "$folder/fail2ban" fail2ban python3-pyinotify ;;
    fail2ban-newest) unpack_from sid "$folder/fail2ban-newest" fail2ban python3-pyinotify ;;
    crowdsec) unpack "$folder/crowdsec" crowdsec ;;
    crowdsec-firewall-bouncer) unpack "$folder/crowdsec-firewall-bouncer" crowdsec-firewall-bouncer ;;
    prometheus) unpack "$folder/prometheus" prometheus ;;
    postgresql) make_tree "$folder/postgresql" "$scripts" postgresql bookworm ;;
    sipvicious) unpack "$folder/sipvicious" sipvicious ;;
    esac
}

# Two at a time: each waits for the network half of its time.
make_trees() {
    local folder=$1 name running=0 status=0
    local -a missing=()
    shift
    for name in "$@"; do
        [[ -e $folder/$name ]] || missing+=("$name")
    done
    ((${#missing[@]})) || return 0
    mkdir -p "$folder"
    exec 9>"$folder/.lock"
    flock 9
    scripts=$(mktemp -d)
    trap 'rm -rf "$scripts"' EXIT
    cp -a /usr/share/debootstrap/. "$scripts"
    for name in "${missing[@]}"; do
        if ((running == 2)); then
            wait -n || status=1
            running=1
        fi
        make_tree_named "$folder" "$name" &
        ((++running))
    done
    for ((; running; running--)); do
        wait -n || status=1
    done
    return "$status"
}

if ! able; then
    [[ $1 == system ]] || echo "lab: skipped: it needs root on Debian"
    exit 0
fi
case "$1 ${*: -1}" in
"system demo") install_missing "${demo_packages[@]}" ;;
system*) install_missing "${packages[@]}" ;;
"trees demo") make_trees "$2" 22 ;;
"trees compare") make_trees "$2" 22 fail2ban fail2ban-newest crowdsec crowdsec-firewall-bouncer ;;
"trees bench") make_trees "$2" postgresql ;;
trees*) make_trees "$2" 16 22 kamailio debian-12 debian-13 fail2ban prometheus crowdsec sipvicious ;;
*)
    echo "usage: lab.sh system [demo] | trees FOLDER [demo | compare | bench]" >&2
    exit 2
    ;;
esac

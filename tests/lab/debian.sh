# Sourced by the scripts that fetch Debian packages without installing them: an apt of our own.
# The one who sources it has a function "fail", which says what went wrong and ends the script, and
# may set `debian_else`, which is said where there is no apt.
# shellcheck shell=bash

# What must be there before anything is fetched. Sets `debian_mirror` and `debian_keyring`.
debian_check() {
    local tool
    for tool in apt-get apt-config apt-cache dpkg-deb flock; do
        command -v "$tool" >/dev/null ||
            fail "$tool is missing: this needs a Debian or a relative of it${debian_else:-}"
    done
    debian_keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$debian_keyring" ] ||
        fail "$debian_keyring is missing: install the package debian-archive-keyring"
    debian_mirror=${PAGEWIRE_DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' |
        grep -E '/debian/?$' | head -n 1 || true)}
    [ -n "$debian_mirror" ] ||
        fail "this machine's apt knows no Debian mirror: name one in PAGEWIRE_DEBIAN_MIRROR"
}

# Makes an apt in a folder, for these suites, and fetches their package lists. Exports APT_CONFIG:
# from here on apt-get and apt-cache are this one. It knows of no installed package, so it fetches
# the C library too where dependencies are followed.
debian_apt() { # folder, suite…
    local apt=$1 name
    shift
    debian_check
    mkdir -p "$apt"/{etc/parts,etc/preferences,state/lists/partial,cache/archives/partial,log,deb}
    : >"$apt/status"
    for name in "$@"; do
        echo "deb [signed-by=$debian_keyring] $debian_mirror $name main"
    done >"$apt/etc/sources.list"
    # The system's apt.conf.d is not read: commands in it may clean the system's cache after a
    # fetch. A proxy that is set there is taken over.
    {
        apt-config dump | grep -E '^Acquire::(http|https)::[Pp]roxy' || true
        cat <<CONF
Dir::Etc "$apt/etc";
Dir::Etc::parts "$apt/etc/parts";
Dir::Etc::preferencesparts "$apt/etc/preferences";
Dir::State "$apt/state";
Dir::State::status "$apt/status";
Dir::Cache "$apt/cache";
Dir::Log "$apt/log";
APT::Architecture "amd64";
APT::Architectures { "amd64"; };
APT::Install-Recommends "false";
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "2";
Acquire::http::Timeout "30";
Acquire::https::Timeout "30";
Acquire::Check-Valid-Until "false";
CONF
    } >"$apt/apt.conf"
    export APT_CONFIG=$apt/apt.conf
    debian_folder=$apt
    apt-get -q update >"$apt/log/update" 2>&1 ||
        debian_why "the package lists could not be fetched" "$apt/log/update"
    # A mirror that does not answer is only a warning to apt.
    if grep -qE '^(Err|W: Failed)' "$apt/log/update"; then
        debian_why "the package lists could not be fetched" "$apt/log/update"
    fi
}

# Fails with the first error of a log of apt's.
debian_why() { # what failed, log
    local why
    why=$(grep -E '^(E|W):' "$2" | head -n 1 || true)
    fail "$1 (is there a network?): ${why:-no reason given}"
}

# Fetches one package, without those that it depends on, and writes some of its files, or all.
debian_unpack() { # package with its suite or version, folder, tar's options and the files…
    local package=$1 into=$2
    shift 2
    (cd "$debian_folder/deb" && apt-get -q download "$package") >"$debian_folder/log/download" 2>&1 ||
        debian_why "$package could not be fetched" "$debian_folder/log/download"
    mkdir -p "$into"
    dpkg-deb --fsys-tarfile "$debian_folder/deb/${package%%[/=]*}_"*.deb |
        tar --extract --directory "$into" "$@"
    rm "$debian_folder/deb/${package%%[/=]*}_"*.deb
}

# The first that a package depends on whose name fits a pattern.
debian_names() { # package, pattern, suite
    apt-cache -o APT::Default-Release="$3" depends --no-recommends --no-suggests "$1" |
        awk -v pattern="$2" '$1 == "Depends:" && $2 ~ pattern && !found { found = $2 } END { print found }'
}

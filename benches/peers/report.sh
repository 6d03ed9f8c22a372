# Sourced by the peers' scripts: runs a program "peer" that prints a row for each case, by callgrind and
# by the clock, and puts both figures into a row. The one who sources it has a function "fail".
# shellcheck shell=bash

# Runs a command so that Ctrl-C ends it. `job` is what runs, for the one who has the trap.
job=""
patiently() { # command…
    local status=0
    "$@" &
    job=$!
    wait "$job" || status=$?
    job=""
    return $status
}

# Writes the rows of all cases into FOLDER/rows. Each case has left two dumps of callgrind's: what came
# before it was warm, and what counts.
report_measure() { # folder with the program "peer", clock or not, callgrind's options for what is collected…
    local folder=$1 clock=$2 number=0 row calls total frames instructions nanoseconds
    shift 2
    echo "run: counting" >&2
    patiently valgrind --tool=callgrind --collect-atstart=no "$@" --dump-after=case_over \
        --callgrind-out-file="$folder/calls" "$folder/peer" count >"$folder/counted" 2>"$folder/errors" ||
        { tail -n 5 "$folder/errors" >&2; fail "callgrind failed" 1; }
    if [ "$clock" = yes ]; then
        echo "run: timing" >&2
        patiently "$folder/peer" time >"$folder/timed" || fail "the run by the clock failed" 1
    fi
    while IFS= read -r row; do
        number=$((number + 1))
        calls=$folder/calls.$((2 * number))
        total=$(sed -n 's/^totals: //p' "$calls" 2>/dev/null) || true
        [ "${total:-0}" -gt 0 ] || fail "callgrind has left no count of case $number" 1
        frames=${row##*\"frames\": }
        nanoseconds=null
        [ "$clock" = no ] || nanoseconds=$(sed -n "$number s/.*\"nanoseconds\": \(.*\)}/\1/p" "$folder/timed")
        instructions=$(awk -v total="$total" -v frames="${frames%\}}" 'BEGIN { printf "%.1f", total / frames }')
        echo "${row%\"frames\"*}\"instructions\": $instructions, \"nanoseconds\": $nanoseconds}"
    done <"$folder/counted" >"$folder/rows"
}

# Prints a table of the cases that have a text in their names, and writes all into a file, if one is named.
report_show() { # folder, peer, version, text, JSON file or nothing
    local folder=$1 name instructions nanoseconds
    if [ -n "$5" ]; then
        {
            printf '{"peer": "%s", "version": "%s", "per": "frame",\n "cases": [\n' "$2" "$3"
            sed 's/^/  /; $!s/$/,/' "$folder/rows"
            echo ' ]}'
        } >"$5"
    fi
    printf '%-52s %12s %12s\n' "$2 $3, per frame" instructions nanoseconds
    sed 's/.*"case": "\([^"]*\)".*"instructions": \(.*\), "nanoseconds": \(.*\)}/\1 \2 \3/' "$folder/rows" |
        { grep -F -e "$4" || true; } | while read -r name instructions nanoseconds; do
        printf '%-52s %12s %12s\n' "$name" "$instructions" "${nanoseconds/null/-}"
    done
}

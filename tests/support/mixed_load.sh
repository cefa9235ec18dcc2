# SPDX-License-Identifier: Apache-2.0
# A mixed load for a Debian guest, which checks its own answers: sh mixed_load.sh SECONDS WORK ANSWERS
# WORK is a directory on the guest's disk; ANSWERS has lines "name digest", worked out on the host. Prints "LOAD-OK job" and
# "LOAD-WRONG job: what", and at the end "LOAD-ROUNDS n n", one number for each of the two workers.
SECONDS_WANTED=$1
WORK=$2
ANSWERS=$3
N=200000

answer() { sed -n "s/^$1 //p" "$ANSWERS"; }
digest() { sha256sum | cut -d' ' -f1; }
wrong() { echo "LOAD-WRONG $*"; }
# is JOB: standard input has the digest that the host has worked out.
is() {
	got=$(digest)
	[ "$got" = "$(answer "$1")" ] && echo "LOAD-OK $1" || wrong "$1: $got"
}
# runs JOB COMMAND...: it ends well, and prints nothing else than what a good end has.
runs() {
	job=$1
	shift
	"$@" > "$job.log" 2>&1 && echo "LOAD-OK $job" || wrong "$job: status $?: $(tail -c 500 "$job.log" | tr '\n' '|')"
}

numbers() { seq $N; }

compile() {
	cat > sieve.c <<'END'
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* Primes below a number, and doubles whose sum does not depend on the compiler's order. */
int main(int argc, char **argv) {
	uint32_t n = argc > 1 ? (uint32_t)atoi(argv[1]) : 0;
	char *composite = calloc(n + 1, 1);
	double halves = 0;
	for (uint32_t i = 2; i <= n; i++) {
		if (composite[i])
			continue;
		printf("%u\n", i);
		halves += i * 0.5;
		for (uint64_t k = (uint64_t)i * i; k <= n; k += i)
			composite[k] = 1;
	}
	printf("%.1f\n", halves);
	free(composite);
	return 0;
}
END
	for level in -O0 -O2 "-O3 -mfpmath=387"; do
		# shellcheck disable=SC2086
		gcc $level -Wall -Werror -o sieve sieve.c && ./sieve 300000 | is primes
	done
	runs link gcc -O2 -g -flto -static -o sieve-static sieve.c
	./sieve-static 300000 | is primes
}
sorting() {
	numbers | shuf | sort -n | is numbers
	numbers | sort -S 1M -T . | sort -n -r | tac | is numbers
}
packing() {
	for tool in "gzip -9" "bzip2" "xz -1"; do
		# shellcheck disable=SC2086
		numbers | $tool > packed && ${tool%% *} -dc packed | is numbers
	done
	tar -cf - -C /usr/share/doc . 2> /dev/null > tree.tar
	gzip -c tree.tar > tree.tar.gz
	gunzip -c tree.tar.gz | cmp - tree.tar && echo "LOAD-OK tree" || wrong tree
	rm -f tree.tar tree.tar.gz
}
ciphers() {
	numbers | openssl dgst -sha256 -r | cut -d' ' -f1 > sha
	[ "$(cat sha)" = "$(answer numbers)" ] && echo "LOAD-OK sha256" || wrong "sha256: $(cat sha)"
	for cipher in aes-256-cbc aes-128-ctr chacha20 camellia-256-cbc; do
		numbers | openssl enc -$cipher -pbkdf2 -pass pass:word -out secret &&
			openssl enc -d -$cipher -pbkdf2 -pass pass:word -in secret | is numbers
	done
	openssl genrsa -out key 2048 2> /dev/null
	openssl rsa -in key -pubout -out public 2> /dev/null
	numbers > text
	openssl dgst -sha256 -sign key -out signature text
	runs signature openssl dgst -sha256 -verify public -signature signature text
	echo more >> text
	openssl dgst -sha256 -verify public -signature signature text > /dev/null 2>&1 && wrong "signature: of another text"
	runs speed openssl speed -seconds 1 -bytes 8192 sha256 md5 aes-128-cbc
	runs speed-rsa openssl speed -seconds 1 rsa2048 ecdsap256 ed25519
}
# One of them asserts a time, which says how busy the host is.
regex() { runs python-re python3 -m test -q -i test_search_anchor_at_beginning test_re; }
floats() { runs python-math python3 -m test -q test_math test_float test_json test_struct; }
packages() {
	# The digests of all packages' files, which are read from the disk.
	sync
	echo 3 > /proc/sys/vm/drop_caches
	runs dpkg-verify sh -c "dpkg --verify | cmp - '$WORK/verified'"
	runs apt-cache apt-cache gencaches
	runs apt-check apt-get check
	runs apt-simulate apt-get -s install --reinstall bash
	[ -e /load-no-network ] && return
	export DEBIAN_FRONTEND=noninteractive
	runs apt-update apt-get update
	runs apt-install apt-get install -y hello
	[ "$(hello 2> /dev/null)" = "Hello, world!" ] && echo "LOAD-OK hello" || wrong "hello: $(hello 2>&1)"
	runs apt-purge apt-get purge -y hello
}

# worker NAME JOBS...: one after the other until the time is over.
worker() {
	mkdir -p "$WORK/$1" && cd "$WORK/$1" || exit 1
	name=$1
	shift
	rounds=0
	while [ "$(cut -d. -f1 /proc/uptime)" -lt "$END" ] || [ $rounds = 0 ]; do
		for job in "$@"; do "$job"; done
		rounds=$((rounds + 1))
		echo "LOAD-ROUND $name $rounds at $(cut -d. -f1 /proc/uptime)"
	done
	echo $rounds > "$WORK/rounds-$name"
}

END=$(($(cut -d. -f1 /proc/uptime) + SECONDS_WANTED))
mkdir -p "$WORK"
mkdir -p /var/lib/apt/lists/partial # which the first update makes
dpkg --verify > "$WORK/verified"
worker one compile packing packages &
worker two sorting ciphers regex floats &
wait
dmesg | grep -E 'BUG|WARNING|Oops|general protection|segfault|traps:|rcu.*stall|lockup|Call Trace|EXT4-fs error|I/O error' |
	sed 's/^/LOAD-KERNEL-COMPLAINS /'
echo "LOAD-ROUNDS $(cat "$WORK/rounds-one") $(cat "$WORK/rounds-two")"

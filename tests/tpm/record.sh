#!/bin/bash
# Records structures of a TPM emulator (swtpm) with tpm2-tools into the directory $1, which must exist. See README.md.
set -euo pipefail
out=$(realpath "$1")
dir=$(mktemp -d)
socket="$dir/tpm"
swtpm socket --tpm2 --tpmstate dir="$dir" --server type=unixio,path="$socket" --ctrl type=unixio,path="$socket.ctrl" \
    --flags not-need-init,startup-clear 2>/dev/null &
pid=$!
trap 'kill $pid 2>/dev/null; rm -rf "$dir"' EXIT
export TPM2TOOLS_TCTI="swtpm:path=$socket"
for _ in $(seq 50); do
    [ -S "$socket" ] && break
    sleep 0.1
done
cd "$dir"
data=$(printf 'qualifying data of 32 bytes (V1)' | xxd -p -c 64)
registers=sha256:0,1,2,3,4,5,6,7,9,10,11,12,14
ak='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign'
# There are three slots for objects; each command leaves what it loaded.
run() { "$@" >/dev/null && tpm2_flushcontext -t; }
endorsed() { # with a session in which the endorsement hierarchy permits the use of its key
    tpm2_startauthsession --policy-session -S session
    tpm2_policysecret -S session -c e >/dev/null
    "$@" >/dev/null
    tpm2_flushcontext session
    tpm2_flushcontext -t
}

run tpm2_createek -G ecc -c ek.ctx -u ek.tss
run tpm2_readpublic -c ek.ctx -f tpmt -o "$out/ek.public" -n "$out/ek.name" -q "$out/ek.qualified_name"
endorsed tpm2_create -C ek.ctx -P session:session -G ecc256:ecdsa-sha256:null -u ak.pub -r ak.priv -a "$ak"
endorsed tpm2_load -C ek.ctx -P session:session -u ak.pub -r ak.priv -c ak.ctx
run tpm2_readpublic -c ak.ctx -f tpmt -o "$out/ak.public" -n "$out/ak.name" -q "$out/ak.qualified_name"
run tpm2_quote -c ak.ctx -q "$data" -l $registers -m "$out/quote.attest" -s "$out/quote.sig" -f tss \
    -o "$out/quote.pcrs" -F values
run tpm2_nvdefine 0x1500100 -C o -s 8 -a 'nt=counter|ownerread|ownerwrite|authread|authwrite|no_da'
run tpm2_nvincrement -C o 0x1500100
tpm2_nvreadpublic 0x1500100 | awk '/name:/ { print $2 }' | xxd -r -p >"$out/counter.name"
run tpm2_nvcertify -C ak.ctx -c o -g sha256 -f tss --size 8 --offset 0 -q "$data" -o "$out/nv.sig" \
    --attestation "$out/nv.attest" 0x1500100

run tpm2_createprimary -C o -G ecc -c srk.ctx
run tpm2_readpublic -c srk.ctx -f tpmt -o "$out/srk.public"
head -c 32 /dev/zero >seed
run tpm2_create -C srk.ctx -i seed -u seal.pub -r seal.priv -a 'fixedtpm|fixedparent|userwithauth|noda'
run tpm2_load -C srk.ctx -u seal.pub -r seal.priv -c seal.ctx
run tpm2_readpublic -c seal.ctx -f tpmt -o "$out/sealed.public"
run tpm2_createek -G rsa -c ek_rsa.ctx -u ek_rsa.tss
run tpm2_readpublic -c ek_rsa.ctx -f tpmt -o "$out/ek_rsa.public" -n "$out/ek_rsa.name"
run tpm2_createprimary -C o -G ecc256:ecdsa-sha256:null -a "$ak" -c owned.ctx
run tpm2_readpublic -c owned.ctx -f tpmt -o "$out/owner_ak.public" -q "$out/owner_ak.qualified_name"
run tpm2_quote -c owned.ctx -q "$data" -l sha256:0 -m "$out/owner_quote.attest" -s "$out/owner_quote.sig" -f tss
run tpm2_create -C srk.ctx -G ecc384 -u p384.pub -r p384.priv
run tpm2_load -C srk.ctx -u p384.pub -r p384.priv -c p384.ctx
run tpm2_readpublic -c p384.ctx -f tpmt -o "$out/p384.public"
run tpm2_create -C srk.ctx -G rsa2048:rsassa-sha256:null -u rsa.pub -r rsa.priv -a "$ak"
run tpm2_load -C srk.ctx -u rsa.pub -r rsa.priv -c rsa.ctx
run tpm2_readpublic -c rsa.ctx -f tpmt -o "$out/ak_rsa.public"
run tpm2_quote -c rsa.ctx -q "$data" -l sha256:0 -m "$out/rsa_quote.attest" -s "$out/rsa_quote.sig" -f tss
run tpm2_gettime -c ak.ctx -q "$data" -g sha256 -f tss -o "$out/time.sig" --attestation "$out/time.attest"
run tpm2_certify -c p384.ctx -C ak.ctx -g sha256 -o "$out/certify.attest" -s "$out/certify.sig"
run tpm2_create -C srk.ctx -G ecc256 -u key.pub -r key.priv -d creation.hash -t creation.ticket
run tpm2_load -C srk.ctx -u key.pub -r key.priv -c key.ctx
run tpm2_certifycreation -C ak.ctx -c key.ctx -d creation.hash -t creation.ticket -g sha256 -f tss \
    -o "$out/creation.sig" --attestation "$out/creation.attest"

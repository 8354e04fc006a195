# The TPM is there, answers, and carries the certificates that its vendor gave it.
[ -c /dev/tpmrm0 ] || fail "no /dev/tpmrm0"
export TPM2TOOLS_TCTI=device:/dev/tpmrm0
tpm2 getcap properties-fixed > /disk/out/properties || fail "getcap: $?"
tpm2 pcrread sha256:0,7,10 > /disk/out/pcrs || fail "pcrread: $?"
tpm2 getcap handles-nv-index > /disk/out/handles || fail "getcap: $?"
for index in 0x1c00002 0x1c0000a 0x1c00016; do
    tpm2 nvread "$index" -o "/disk/out/certificate-$index" || fail "nvread $index: $?"
done
# Its exit code is about the kernel's programs, not about the TPM.
affiant doctor --json > /disk/out/doctor.json

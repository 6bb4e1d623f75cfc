# One machine over several boots; the script is the same in each, the disk remembers which it is.
# Boot 1: enrolled, with a geotag; the agent stops by itself. Boot 2: the agent runs until the
# machine loses its power. Boot 3: the agent again, and the report over all of them. Boot 4: the
# same disk with another TPM.
set -eu
state=/var/lib/merestone
out=/merestone/out
config=/etc/merestone/merestone.toml
boot=$(($(cat /merestone/boot 2>/dev/null || echo 0) + 1))
echo "$boot" >/merestone/boot
sync
say() { echo "boot $boot: $*"; }
fail() {
    say "FAILED: $*"
    tail -n 30 /var/log/agent.log || true
    exit 1
}
mkdir -p /etc/merestone "$state" /run/merestone "$out"

if [ "$boot" = 1 ]; then
    printf 'name = "boots"\n[[allow]]\ncidr = ["198.51.100.0/24"]\nports = [443]\n' >/etc/merestone/boundary.toml
    cat >"$config" <<END
node = "boots"
boundary = "/etc/merestone/boundary.toml"
state_dir = "$state"
[enforcement]
tamper = false
[canary]
enabled = false
[tpm]
tcti = "device:/dev/tpmrm0"
[evidence]
epoch = "500ms"
heartbeat = "1s"
[site]
country = "DE"
END
    desk=/root/desk
    mkdir -p $desk
    cp /merestone/files/swtpm-localca-rootca-cert.pem $desk/root.pem
    cp /merestone/files/issuer.pem $desk/issuer.pem
    printf 'version = 1\n[ek]\nroots = ["root.pem"]\nintermediates = ["issuer.pem"]\n' >$desk/authority.toml
    place=country=DE,facility=boots,at=50.110900:8.682100,by=auditor
    merestone --config $config enroll request --geotag $place --out $desk/host.request || fail request
    merestone-verify enroll keygen --out $desk/authority.pem || fail keygen
    merestone-verify enroll challenge $desk/host.request --trust $desk/authority.toml --out $desk/host.challenge || fail challenge
    merestone --config $config enroll complete $desk/host.challenge --out $desk/host.answer || fail complete
    merestone-verify enroll accept $desk/host.answer --request $desk/host.request --state $desk/host.challenge.state \
        --trust $desk/authority.toml --key $desk/authority.pem --geotag --nv 0x01804d45 --nv 0x01804d53 \
        --out $desk/host.cose || fail accept
    merestone --config $config enroll install $desk/host.cose --authority $desk/authority.pem.pub || fail install
    date -u -d "@$(($(date +%s) - 5))" +%Y-%m-%dT%H:%M:%SZ >/merestone/began
    sync
fi

began=$(date -u -d "@$(($(date +%s) - 1))" +%Y-%m-%dT%H:%M:%SZ)
merestone --config $config run >/var/log/agent.log 2>&1 &
agent=$!
epochs() { merestone --config $config status --json 2>/dev/null | tr -d ' ",' | sed -n 's/^epochs://p' | head -n 1; }
tries=0
until [ "$(epochs || true)" -ge 3 ] 2>/dev/null; do
    tries=$((tries + 1))
    [ $tries -gt 120 ] && fail "no epochs: $(merestone --config $config status --json 2>&1 | head -n 60)"
    kill -0 $agent 2>/dev/null || fail "the agent ended"
    sleep 0.5
done
say "$(epochs) epochs"

if [ "$boot" = 2 ]; then
    sync
    echo "merestone-guest may lose its power"
    sleep 600
fi

kill -TERM $agent
wait $agent || fail "the agent's status is $?"
case $boot in
3) merestone --config $config report --from "$(cat /merestone/began)" --out $out/report.merestone || fail report
   cp /root/desk/authority.pem.pub $out/ ;;
4) merestone --config $config report --from "$began" --out $out/report.merestone || fail report ;;
esac
cp /var/log/agent.log $out/agent.log
sync
say done

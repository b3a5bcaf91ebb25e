"""The examples, as they stand: templates deployed to moto, commands of the READMEs run by bash and the real AWS CLI.

Certificates come from the functions on Local AWS, and the agent runs with the command and environment of the deployed tasks.

    .venv/bin/python tests/examples.py [directory of the binaries, target/debug when absent]
"""

import http.server
import json
import logging
import os
import queue
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
import warnings

os.environ["MOTO_ACCOUNT_ID"] = "111122223333"

from awscli.customizations.cloudformation.yamlhelper import yaml_parse
from moto.acm.models import acm_backends
from moto.cloudformation.models import ChangeSet
from moto.core.common_models import CloudFormationModel
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

from local import TaskCredentials
from stack import BINARIES, ROOT, aws_cli, client_of, local_aws, openssl, said, until

EXAMPLE = os.path.join(ROOT, "examples", "ecs-alb-mtls")
PLACEHOLDER = "arn:aws:acm-pca:eu-central-1:111122223333:certificate-authority/11111111-1111-1111-1111-111111111111"


class AcmCertificate(CloudFormationModel):
    """What moto's CloudFormation lacks of this example; it has no SecurityGroupEgress and no MutualAuthentication either."""

    __module__ = "moto.acm"

    @staticmethod
    def cloudformation_name_type():
        return ""

    @staticmethod
    def cloudformation_type():
        return "AWS::CertificateManager::Certificate"

    @classmethod
    def create_from_cloudformation_json(cls, _name, resource, account, region, **_):
        wanted, made = resource["Properties"], cls()
        made.physical_resource_id = acm_backends[account][region].request_certificate(
            wanted["DomainName"], None, [], wanted.get("Tags"), wanted["CertificateAuthorityArn"])
        return made


def with_outputs(change_set, apply=ChangeSet.apply):
    """Moto forgets the outputs of what comes by a change set, as `aws cloudformation deploy` has it."""
    apply(change_set)
    change_set.stack.template_dict = change_set.template_dict
    change_set.stack.output_map = change_set.stack._create_output_map()


ChangeSet.apply = with_outputs


def main():
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    try:
        moto.start()
        with local_aws(subprocess.DEVNULL) as endpoint:
            ecs_alb_mtls(endpoint, "http://{}:{}".format(*moto.get_host_and_port()))
    finally:
        moto.stop()
    print("1 passed, 0 failed")


def ecs_alb_mtls(aws, moto):
    """`aws` is Local AWS."""
    with open(os.path.join(EXAMPLE, "README.md")) as file:
        steps = re.findall(r"^```sh\n(.*?)^```$", file.read(), re.M | re.S)
    settings, images, certificates, trust_store, stack, shell, curl, listeners = steps
    assert "docker" in images and "execute-command" in shell and "<" not in "".join(steps), "the steps are others"
    with open(os.path.join(EXAMPLE, "template.yaml")) as file:
        template = yaml_parse(file.read())["Resources"]
    authority = next(ca["Arn"] for ca in client_of(aws, "acm-pca").list_certificate_authorities()["CertificateAuthorities"]
                     if ca["CertificateAuthorityConfiguration"]["Subject"]["CommonName"] == "Local Issuing CA")
    assert PLACEHOLDER in settings
    settings = settings.replace(PLACEHOLDER, authority)

    with tempfile.TemporaryDirectory() as directory:
        aws_cli(directory)

        def run(*texts):
            """What the commands print; the answers among it."""
            ended = subprocess.run(["bash", "-euc", "\n".join(texts)], cwd=ROOT, capture_output=True, text=True, timeout=120, env={
                "PATH": f"{directory}:{os.environ['PATH']}", "HOME": directory, "AWS_PAGER": "",
                "AWS_ACCESS_KEY_ID": "local", "AWS_SECRET_ACCESS_KEY": "local",
                "AWS_ENDPOINT_URL": aws, "AWS_ENDPOINT_URL_CLOUDFORMATION": moto,
            })
            assert ended.returncode == 0, ended.stdout + ended.stderr
            return ended.stdout

        def answered(step):
            """Trust stores are changed by one at a time, and their CRLs come when they come: it may be someone else's turn."""
            for _ in range(3):
                printed = run(settings, step)
                if '"Retryable"' not in printed:
                    break
                time.sleep(5)
            return answers(printed)

        issued = answers(run(settings, certificates))
        assert [answer["outcome"] for answer in issued] == ["issued", "issued"], issued
        [made] = answered(trust_store)[0]["trust_stores"]
        assert made["outcome"] == "created", made
        run(settings, stack)
        said("the steps of the README issue two certificates, make a trust store and deploy the stack")
        tasks = look_at_stack(moto, template)
        no_secret_in(moto, template, [client_of(aws, "secretsmanager").get_secret_value(SecretId=answer["secret_arn"])
                                      for answer in issued])

        volumes = {service: os.path.join(directory, service) for service in tasks}
        for (service, containers), answer in zip(tasks.items(), issued):
            agent(aws, containers, volumes[service], answer)
        said("the agent, started as the tasks start it, brings both certificates and is healthy")

        check_trust(aws, template, issued)
        call(aws, moto, curl, volumes, directory)
        keep_listeners(aws, moto, run, answered, settings, listeners)


def answers(text):
    """The functions' answers in what a series of `aws lambda invoke` prints."""
    found, place = [], 0
    while place < len(text.rstrip()):
        one, place = json.JSONDecoder().raw_decode(text, place + len(text[place:]) - len(text[place:].lstrip()))
        assert "FunctionError" not in one, text
        found += [] if "StatusCode" in one else [one]
    return found


def look_at_stack(moto, template):
    """What has come of the template; the containers of each service's tasks by name."""
    ecs, elb, ec2, acm = (client_of(moto, service) for service in ("ecs", "elbv2", "ec2", "acm"))
    [deployed] = client_of(moto, "cloudformation").describe_stacks(StackName="ecs-mtls")["Stacks"]
    assert deployed["StackStatus"] == "CREATE_COMPLETE", deployed
    outputs = {output["OutputKey"]: output["OutputValue"] for output in deployed["Outputs"]}
    [balancer] = elb.describe_load_balancers()["LoadBalancers"]
    assert balancer["Scheme"] == "internal" and balancer["DNSName"] == outputs["LoadBalancerDNS"], balancer
    listeners = {listener["Port"]: listener for listener in
                 elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]}
    assert {port: listener["ListenerArn"] for port, listener in listeners.items()} == {
        8080: outputs["Service1ListenerArn"], 8090: outputs["Service2ListenerArn"]}, listeners
    [certificate] = acm.list_certificates()["CertificateSummaryList"]
    for listener in listeners.values():
        assert listener["Protocol"] == "HTTPS" and listener["SslPolicy"].startswith("ELBSecurityPolicy-TLS13-1-2-"), listener
        assert listener["Certificates"] == [{"CertificateArn": certificate["CertificateArn"]}], listener
    vpc = ec2.describe_vpcs(Filters=[{"Name": "tag:Name", "Values": ["ecs-mtls"]}])["Vpcs"][0]["VpcId"]
    in_vpc = [{"Name": "vpc-id", "Values": [vpc]}]
    reached = {endpoint["ServiceName"].split("eu-central-1.")[1] for endpoint in
               ec2.describe_vpc_endpoints(Filters=in_vpc)["VpcEndpoints"]}
    assert reached == {"s3", "secretsmanager", "ecr.api", "ecr.dkr", "logs", "ssmmessages"}, reached
    routes = [route for table in ec2.describe_route_tables(Filters=in_vpc)["RouteTables"] for route in table["Routes"]]
    assert all(route["GatewayId"] == "local" or route["GatewayId"].startswith("vpce-") for route in routes), routes
    [logs] = client_of(moto, "logs").describe_log_groups()["logGroups"]
    assert logs["retentionInDays"] == 30, logs

    assert outputs["ClusterName"] == "ecs-mtls"
    services = ecs.describe_services(cluster="ecs-mtls", services=["service-one", "service-two"])["services"]
    tasks = {service["serviceName"]: ecs.describe_task_definition(taskDefinition=service["taskDefinition"])["taskDefinition"]
             for service in services}
    assert list(tasks) == ["service-one", "service-two"], tasks

    # What moto does not keep.
    def of_type(kind):
        return [resource["Properties"] for resource in template.values() if resource["Type"] == f"AWS::{kind}"]

    for service in of_type("ECS::Service"):
        assert service["DeploymentConfiguration"]["DeploymentCircuitBreaker"] == {"Enable": True, "Rollback": True}
        assert service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"] == "DISABLED"
    for listener in of_type("ElasticLoadBalancingV2::Listener"):
        assert listener["MutualAuthentication"] == {
            "Mode": "verify", "TrustStoreArn": {"Ref": "TrustStoreArn"}, "IgnoreClientCertificateExpiry": False}
    for name in ("ServiceOne", "ServiceTwo"):
        statements = template[f"{name}Role"]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"]
        assert statements[0]["Resource"] == {"Ref": f"{name}SecretArn"}, statements
    said("the stack verifies clients, rolls back what fails, and has no way to the Internet")
    return {name: {container["name"]: container for container in task["containerDefinitions"]} for name, task in tasks.items()}


def no_secret_in(moto, template, values):
    values = [json.loads(value["SecretString"]) for value in values]
    needles = ["PRIVATE KEY"] + [value["passphrase"] for value in values]
    needles += [line for value in values for line in value["private_key"].splitlines() if len(line) > 20]
    ecs = client_of(moto, "ecs")
    tasks = [ecs.describe_task_definition(taskDefinition=arn) for arn in ecs.list_task_definitions()["taskDefinitionArns"]]
    stack = client_of(moto, "cloudformation").describe_stacks(StackName="ecs-mtls")
    told = json.dumps([template, stack, tasks], default=str)
    assert not [needle for needle in needles if needle in told]
    # Each of these would hand a value of a secret to a container's environment.
    assert not re.search(r'"(Secrets|secrets|EnvironmentFiles)": \[.', told) and "resolve:secretsmanager" not in told


def agent(aws, containers, volume, issued):
    """The two containers of the agent in a task, one after the other, and the health check."""
    fetch, watch, program = (containers[name] for name in ("certificate", "certificate-agent", "nginx"))
    for container in (watch, program):
        assert container["dependsOn"] == [{"containerName": "certificate", "condition": "SUCCESS"}], container
    assert fetch["essential"] is False and watch["essential"] and {fetch["user"], watch["user"], program["user"]} == {"101"}
    mounted = [{"sourceVolume": "certs", "containerPath": "/certs"}]
    assert fetch["mountPoints"] == watch["mountPoints"] == mounted and program["mountPoints"] == [{**mounted[0], "readOnly": True}]
    binary = os.path.join(BINARIES, "everleaf-agent")
    task = http.server.HTTPServer(("127.0.0.1", 0), TaskCredentials)
    threading.Thread(target=task.serve_forever, daemon=True).start()

    def started(container, command, run=subprocess.Popen, **how):
        """As ECS starts it, apart from where the volume is and where AWS."""
        environment = {variable["name"]: variable["value"] for variable in container["environment"]}
        assert environment == {"EVERLEAF_SECRETS": issued["secret_arn"]}, environment
        environment |= {"EVERLEAF_DIRECTORY": volume, "AWS_ENDPOINT_URL": aws,
                        "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{task.server_port}/"}
        return run([binary, *command], env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **how)

    fetched = started(fetch, fetch["command"], subprocess.run, timeout=60)
    assert fetched.returncode == 0, fetched.stdout
    serial = openssl(["x509", "-noout", "-serial", "-in", os.path.join(volume, "current", "cert.pem")], "").split("=")[1]
    assert int(serial, 16) == int(issued["serial_number"], 16), serial
    kind, *check = watch["healthCheck"]["command"]
    with open(os.path.join(ROOT, "agent", "Dockerfile")) as dockerfile:
        assert kind == "CMD" and f'ENTRYPOINT ["{check[0]}"]' in dockerfile.read(), check
    watching = started(watch, watch["command"])
    try:
        def healthy():
            said_by_it = started(watch, check[1:], subprocess.run, timeout=20)
            return said_by_it.returncode == 0 and said_by_it.stdout.startswith("good: ")

        until(f"{issued['certificate']} is watched", healthy, patience=20)
        watching.terminate()
        assert watching.wait(timeout=20) == 0, watching.stdout.read()
    finally:
        watching.kill()
        watching.stdout.close()
        task.shutdown()
        task.server_close()


def check_trust(aws, template, issued):
    """A listener with what the template says of it lets in both clients, and nobody without a certificate."""
    elb, secrets = client_of(aws, "elbv2"), client_of(aws, "secretsmanager")
    [store] = elb.describe_trust_stores(Names=["ecs-mtls"])["TrustStores"]
    wanted = template["ServiceOneListener"]["Properties"]["MutualAuthentication"]
    for listener in local_listeners(aws):
        elb.modify_listener(ListenerArn=listener, MutualAuthentication={**wanted, "TrustStoreArn": store["TrustStoreArn"]})

        def handshake(chain):
            body = json.dumps({"listener_arn": listener, "chain": chain}).encode()
            with urllib.request.urlopen(f"{aws}/_local/handshake", body) as answer:
                return json.load(answer)["tls_verify_status"]

        for answer in issued:
            value = json.loads(secrets.get_secret_value(SecretId=answer["secret_arn"])["SecretString"])
            assert handshake(value["certificate"] + value["certificate_chain"]) == "Success"
        assert handshake("").startswith("Failed:")
    said("listeners as the template has them let in both clients, and nobody else")


def local_listeners(aws):
    elb = client_of(aws, "elbv2")
    [balancer] = elb.describe_load_balancers(Names=["clients"])["LoadBalancers"]
    listeners = elb.describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    return [listener["ListenerArn"] for listener in listeners]


def call(aws, moto, curl, volumes, directory):
    """The README's curl, from both services, to a server in the load balancer's place: its certificate is requested with the name
    and the tags of the deployed one, and whom it lets in is what the trust store holds."""
    acm, elb, secrets = client_of(moto, "acm"), client_of(aws, "elbv2"), client_of(aws, "secretsmanager")
    [deployed] = acm.list_certificates()["CertificateSummaryList"]
    tags = acm.list_tags_for_certificate(CertificateArn=deployed["CertificateArn"])["Tags"]
    authority = acm.describe_certificate(CertificateArn=deployed["CertificateArn"])["Certificate"]["CertificateAuthorityArn"]
    client_of(aws, "acm").request_certificate(DomainName=deployed["DomainName"], CertificateAuthorityArn=authority, Tags=tags)

    def exported():
        try:
            value = json.loads(secrets.get_secret_value(SecretId="everleaf/ecs-mtls/listener")["SecretString"])
        except secrets.exceptions.ResourceNotFoundException:
            return None
        return value if "certificate" in value else None

    server = until("the listeners' certificate is exported by its tag", exported, patience=60)
    [store] = elb.describe_trust_stores(Names=["ecs-mtls"])["TrustStores"]
    bundle = elb.get_trust_store_ca_certificates_bundle(TrustStoreArn=store["TrustStoreArn"])["Location"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version, context.verify_mode = ssl.TLSVersion.TLSv1_2, ssl.CERT_REQUIRED
    with urllib.request.urlopen(bundle) as answer:
        context.load_verify_locations(cadata=answer.read().decode())
    paths = {name: os.path.join(directory, name) for name in ("server.pem", "server.key", "other.pem", "other.key", ".curlrc")}
    with open(paths["server.pem"], "w") as file:
        file.write(server["certificate"] + server["certificate_chain"])
    with open(paths["server.key"], "w") as file:
        file.write(server["private_key"])
    context.load_cert_chain(paths["server.pem"], paths["server.key"], server["passphrase"])
    balancer = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    refusals = queue.Queue()
    balancer.handle_error = lambda *_: refusals.put(str(sys.exc_info()[1]))
    balancer.socket = context.wrap_socket(balancer.socket, server_side=True, do_handshake_on_connect=False)
    threading.Thread(target=balancer.serve_forever, daemon=True).start()
    with open(paths[".curlrc"], "w") as file:
        file.write(f'connect-to = "::127.0.0.1:{balancer.server_port}"\nsilent\nshow-error\n')

    def called(command):
        return subprocess.run(["bash", "-euc", command], capture_output=True, text=True, timeout=60,
                              env={"PATH": os.environ["PATH"], "CURL_HOME": directory})

    openssl(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=service-one",
             "-keyout", paths["other.key"], "-out", paths["other.pem"]], "")
    client = "--cert fullchain.pem --key key.pem"
    assert client in curl and "-k" not in curl.replace("--key", "").split() and ":8090/" in curl
    for service, port in (("service-one", 8090), ("service-two", 8080)):
        command = curl.replace("/certs/", f"{volumes[service]}/").replace(":8090/", f":{port}/")
        good = called(command)
        assert good.returncode == 0 and service in good.stdout, good
        # That the server is not the one called is 60; for a connection that the server ends curl has several numbers.
        assert called(command.replace("services.example", "others.example")).returncode == 60
        for other, why in (("", "peer did not return a certificate"),
                           (f"--cert {paths['other.pem']} --key {paths['other.key']}", "certificate verify failed")):
            refused = called(command.replace(client, other))
            assert refused.returncode != 0 and not refused.stdout, refused
            while why not in refusals.get(timeout=20):
                pass
    balancer.shutdown()
    balancer.server_close()
    said("curl of the README verifies the server; without a certificate, or with one of nobody's, it is refused")


class Answers(http.server.BaseHTTPRequestHandler):
    """Greets a client by its certificate."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(self.connection.getpeercert()["subject"]).encode())

    def log_message(self, *_):
        pass


def keep_listeners(aws, moto, run, answered, settings, step):
    """Everleaf has nothing to change in listeners as the stack has them, and puts right what somebody changes."""
    [balancer] = client_of(moto, "elbv2").describe_load_balancers()["LoadBalancers"]
    ours = client_of(moto, "elbv2").describe_listeners(LoadBalancerArn=balancer["LoadBalancerArn"])["Listeners"]
    names = ["Service1ListenerArn", "Service2ListenerArn"]
    assert run(settings, step.splitlines()[0], *(f"output {name}" for name in names)).split() == [
        listener["ListenerArn"] for listener in sorted(ours, key=lambda listener: listener["Port"])]
    for name, listener in zip(names, local_listeners(aws)):
        assert f"$(output {name})" in step
        step = step.replace(f"$(output {name})", listener)

    [declared] = answered(step)
    assert [listener["outcome"] for listener in declared["trust_stores"][0]["listeners"]] == ["unchanged", "unchanged"], declared
    changed, elb = local_listeners(aws)[0], client_of(aws, "elbv2")
    elb.modify_listener(ListenerArn=changed, MutualAuthentication={"Mode": "off"})
    answered("""aws lambda invoke --function-name everleaf-refresh-truststore --payload '{"refresh": true}' /dev/stdout""")
    [listener] = elb.describe_listeners(ListenerArns=[changed])["Listeners"]
    assert listener["MutualAuthentication"]["Mode"] == "verify", listener
    said("Everleaf finds the listeners as it wants them, and puts right the one that was switched off")


if __name__ == "__main__":
    main()

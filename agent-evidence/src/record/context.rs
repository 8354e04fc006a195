//! What the agent was told or handed out: credentials, application context, decisions and secrets recognized.

use super::identity::{Label, Requester};
use super::ids::{Digest, EntryIndex, WallTime};
use super::list::List;
use super::schema::{object, words};
use super::text::{Bytes, Text};
use super::value::Value;

words! {
    /// What was done with a credential.
    CredentialOp as "credential op" {
        /// It was handed out for the first time.
        Issued = "issued",
        /// A fresh one took its place.
        Renewed = "renewed",
        /// It was asked for and refused.
        Refused = "refused",
        /// It is not renewed any more, and decisions treat it as void.
        Revoked = "revoked",
    }
}

words! {
    /// What sort of credential.
    CredentialType as "credential type" {
        /// A SPIFFE JWT-SVID.
        JwtSvid = "jwt_svid",
        /// A SPIFFE X.509-SVID.
        X509Svid = "x509_svid",
        /// A SPIFFE trust bundle.
        Bundle = "bundle",
    }
}

words! {
    /// Where application context came from.
    ContextSource as "context source" {
        /// An OpenTelemetry span.
        OtlpSpan = "otlp_span",
        /// An OpenTelemetry log record.
        OtlpLog = "otlp_log",
        /// A notebook's extension.
        Notebook = "notebook",
    }
}

words! {
    /// What sort of secret was used.
    SecretSort as "secret sort" {
        /// A Kubernetes service account token.
        ServiceAccount = "service_account",
        /// A cloud provider's credential.
        Cloud = "cloud",
        /// An SSH key or agent.
        Ssh = "ssh",
        /// A SPIFFE Workload API socket.
        Spiffe = "spiffe",
        /// A file of environment settings.
        Env = "env",
        /// A container runtime's socket.
        ContainerRuntime = "container_runtime",
        /// Named by configuration.
        Configured = "configured",
    }
}

words! {
    /// What a policy decided.
    Decision as "decision word" {
        /// Allowed.
        Allow = "allow",
        /// Denied.
        Deny = "deny",
    }
}

words! {
    /// What became of a decision.
    Enforcement as "enforcement" {
        /// Nothing: it is only recorded.
        None = "none",
        /// The kernel refused the act, or let it go on, accordingly.
        Kernel = "kernel",
        /// The asker was told, and is trusted to obey.
        Asker = "asker",
    }
}

object! {
    /// What a policy decided of an act, and what became of it.
    Verdict<'a> as "verdict" {
        /// The decision.
        decision: Decision = "decision",
        /// What was enforced.
        enforced: Enforcement = "enforced",
        /// Index of the `policy` entry of the set that was evaluated.
        set: EntryIndex = "set",
        /// Ids of the policies that determined it.
        by: List<'a, Text<'a>> = "by",
        /// Ids of policies that could not be evaluated.
        errors: List<'a, Text<'a>> = "errors",
    }
}

object! {
    /// A credential was issued, renewed, refused or revoked. Never the credential itself.
    Credential<'a> as "credential" {
        /// What was done.
        op: CredentialOp = "op",
        /// What sort.
        type_: CredentialType = "type",
        /// The identity, as a SPIFFE ID.
        identity: Text<'a> = "identity",
        /// Serial number (X.509) or `jti` (JWT).
        serial: Option<Text<'a>> = "serial",
        /// Audiences.
        audience: List<'a, Text<'a>> = "audience",
        /// Until when it is valid, by the host's clock.
        not_after: Option<WallTime> = "not_after",
        /// SHA-256 of the credential.
        sha256: Option<Digest> = "sha256",
        /// Who signed it: `embedded`, or the name of another authority.
        issuer: Option<Text<'a>> = "issuer",
        /// Why it was refused or revoked.
        reason: Option<Text<'a>> = "reason",
        /// Who asked.
        by: Option<Requester> = "by",
    }
}

object! {
    /// What an application says of its own work.
    ContextClaims<'a> as "context claims" {
        /// Name of the span, event or cell.
        name: Text<'a> = "name",
        /// Trace id.
        trace: Option<Bytes<'a>> = "trace",
        /// Span id.
        span: Option<Bytes<'a>> = "span",
        /// Span id of the parent.
        parent: Option<Bytes<'a>> = "parent",
        /// When it began, by the application's clock.
        began: Option<WallTime> = "began",
        /// When it ended, by the application's clock.
        ended: Option<WallTime> = "ended",
        /// Attributes.
        attributes: List<'a, Label<'a>> = "attributes",
    }
}

object! {
    /// An application told of its work. `p` is the process that had opened the connection, where known: a fact; all else of it is claims.
    Context<'a> as "context" {
        /// Where it came from.
        source: ContextSource = "source",
        /// Who opened the connection, where known.
        peer: Option<Requester> = "peer",
        /// Why that is not known.
        peer_unknown: Option<Text<'a>> = "peer_unknown",
        /// What the application says.
        claims: ContextClaims<'a> = "claims",
    }
}

object! {
    /// What the asker of a decision says.
    DecisionClaims<'a> as "decision claims" {
        /// Type of the subject.
        subject_type: Text<'a> = "subject_type",
        /// Id of the subject.
        subject: Value<'a> = "subject",
        /// The action.
        action: Text<'a> = "action",
        /// Type of the resource.
        resource_type: Text<'a> = "resource_type",
        /// Id of the resource.
        resource: Value<'a> = "resource",
        /// Further properties.
        properties: List<'a, Label<'a>> = "properties",
    }
}

object! {
    /// A decision was asked for before an act. The answer is the common member `verdict`.
    Asked<'a> as "decision" {
        /// Who asked.
        peer: Option<Requester> = "peer",
        /// Why that is not known.
        peer_unknown: Option<Text<'a>> = "peer_unknown",
        /// The asker's id of the request.
        request: Option<Text<'a>> = "request",
        /// What the asker says.
        claims: DecisionClaims<'a> = "claims",
    }
}

object! {
    /// An act used a secret.
    SecretUse<'a> as "secret" {
        /// Index of the act's entry.
        of: EntryIndex = "of",
        /// What sort of secret.
        sort: SecretSort = "sort",
        /// By which rule it was recognized.
        rule: Text<'a> = "rule",
    }
}

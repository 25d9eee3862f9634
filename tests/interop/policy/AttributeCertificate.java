import java.io.FileReader;
import java.math.BigInteger;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.PrivateKey;
import java.security.Security;
import java.util.Date;
import org.bouncycastle.asn1.ASN1ObjectIdentifier;
import org.bouncycastle.asn1.DERSequence;
import org.bouncycastle.asn1.DERUTF8String;
import org.bouncycastle.asn1.pkcs.PrivateKeyInfo;
import org.bouncycastle.asn1.x500.X500Name;
import org.bouncycastle.cert.AttributeCertificateHolder;
import org.bouncycastle.cert.AttributeCertificateIssuer;
import org.bouncycastle.cert.X509AttributeCertificateHolder;
import org.bouncycastle.cert.X509CertificateHolder;
import org.bouncycastle.cert.X509v2AttributeCertificateBuilder;
import org.bouncycastle.cert.jcajce.JcaX509ExtensionUtils;
import org.bouncycastle.jce.provider.BouncyCastleProvider;
import org.bouncycastle.openssl.PEMParser;
import org.bouncycastle.openssl.jcajce.JcaPEMKeyConverter;
import org.bouncycastle.operator.jcajce.JcaContentSignerBuilder;
import org.bouncycastle.operator.jcajce.JcaContentVerifierProviderBuilder;

/** Attribute certificates with Bouncy Castle: read IDENTITY FILE, or write IDENTITY KEY STATEMENT ALGORITHM FILE. */
class AttributeCertificate {
    static final ASN1ObjectIdentifier ATTRIBUTE = new ASN1ObjectIdentifier("1.3.6.1.5.5.7.10.4");
    static final ASN1ObjectIdentifier KEY_IDENTIFIER = new ASN1ObjectIdentifier("2.5.29.35");

    public static void main(String[] given) throws Exception {
        Security.addProvider(new BouncyCastleProvider());
        X509CertificateHolder identity = (X509CertificateHolder) pem(given[1]);
        if (given[0].equals("read")) {
            read(identity, Path.of(given[2]));
        } else {
            PrivateKey key = new JcaPEMKeyConverter().getPrivateKey((PrivateKeyInfo) pem(given[2]));
            write(identity, key, given[3], given[4], Path.of(given[5]));
        }
    }

    static Object pem(String file) throws Exception {
        try (PEMParser parser = new PEMParser(new FileReader(file))) {
            return parser.readObject();
        }
    }

    static void read(X509CertificateHolder identity, Path file) throws Exception {
        X509AttributeCertificateHolder certificate = new X509AttributeCertificateHolder(Files.readAllBytes(file));
        System.out.println(certificate.isSignatureValid(new JcaContentVerifierProviderBuilder().build(identity)));
        System.out.println(certificate.getVersion());
        System.out.println(certificate.getIssuer().getNames()[0] + " " + certificate.getHolder().getEntityNames()[0]);
        System.out.println(certificate.getAttributes(ATTRIBUTE)[0].getAttributeValues()[0]);
        System.out.println(certificate.getNotAfter().toInstant());
        System.out.println(certificate.getExtension(KEY_IDENTIFIER) != null);
    }

    static void write(X509CertificateHolder identity, PrivateKey key, String statement, String algorithm, Path file)
            throws Exception {
        X500Name name = new X500Name("CN=" + statement.substring(0, 40));
        Date now = new Date();
        X509v2AttributeCertificateBuilder builder = new X509v2AttributeCertificateBuilder(
                new AttributeCertificateHolder(name), new AttributeCertificateIssuer(name),
                BigInteger.valueOf(now.getTime()), now, new Date(now.getTime() + 86_400_000L));
        builder.addAttribute(ATTRIBUTE, new DERSequence(new DERSequence(new DERUTF8String(statement))));
        builder.addExtension(KEY_IDENTIFIER, false,
                new JcaX509ExtensionUtils().createAuthorityKeyIdentifier(identity.getSubjectPublicKeyInfo()));
        Files.write(file, builder.build(new JcaContentSignerBuilder(algorithm).build(key)).getEncoded());
    }
}
